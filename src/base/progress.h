// Progress and cancellation of long work. The library reports; only cli and serve print.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace pome {

// Thread safety: begin/advance/end may come from any thread, but never two at once for one object.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void begin(std::string_view phase, uint64_t total,
                     std::string_view unit) = 0;  // unit: "bytes", "tokens"
  virtual void advance(uint64_t done) = 0;        // absolute, never decreases within a phase
  virtual void end() = 0;
};

// Set from a signal handler or another thread; long work polls it.
class CancelToken {
 public:
  void cancel() { flag_.store(true, std::memory_order_relaxed); }
  void reset() { flag_.store(false, std::memory_order_relaxed); }
  bool cancelled() const { return flag_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> flag_{false};
};
inline Status check_cancelled(const CancelToken* token) {
  if (token && token->cancelled()) return Status(StatusCode::kInterrupted, "interrupted");
  return {};
}

// What every long call takes; all may be null.
struct WorkContext {
  Progress* progress = nullptr;
  const CancelToken* cancel = nullptr;
  int threads = 1;
};

}  // namespace pome
