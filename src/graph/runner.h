// Runner: the one interface of everything that can produce logits (engine, reference evaluator,
// interpreters of exported artefacts). run, eval and verify have no branches per kind.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"

namespace pome {

struct RunnerInfo {
  std::string kind;  // "engine", "reference", "package"
  int64_t vocab_size = 0;
  int64_t capacity = 0;  // tokens the cache can hold
  int64_t chunk = 0;     // tokens per prefill call it likes best
};

enum class LogitsOf : uint8_t { kNone, kLast, kAll };

// Batch of one. Thread safety: one thread at a time; calls may use threads of their own.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual const RunnerInfo& info() const = 0;
  // Appends ids to the context. `logits` takes f32 [rows, vocab_size], rows = 0, 1 or ids.size().
  // More tokens than the capacity is kUsage and changes nothing; so is an id outside [0,
  // vocab_size).
  virtual Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) = 0;
  // One token. Same result as prefill of one id within the runner's stated tolerance.
  virtual Status decode(int32_t id, std::span<float> logits) = 0;
  virtual int64_t position() const = 0;  // tokens in the context
  virtual Status truncate(
      int64_t position) = 0;  // forgets all tokens from `position` on; 0 empties the context
  void set_cancel(const CancelToken* token) {
    cancel_ = token;
  }  // polled between chunks and layers

 protected:
  const CancelToken* cancel_ = nullptr;
};

// Shared argument check of prefill.
Status check_prefill(const RunnerInfo& info, int64_t position, std::span<const int32_t> ids,
                     LogitsOf which, size_t logits_size);

}  // namespace pome
