// Runner: the one interface of everything that can produce logits (engine, reference evaluator,
// interpreters of exported artefacts). run, eval and verify have no branches per kind.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
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
  // The ids of the context, position() of them; empty where the runner does not keep them.
  virtual std::span<const int32_t> history() const { return {}; }
  // Whether truncate(position) is possible: a cache of sliding windows drops what they are past.
  virtual bool can_truncate(int64_t position) const { return position <= this->position(); }
  // Writes the context to a file (with a note of the caller's), or takes it from there; what is
  // replaced is gone. kUnsupported unless keeps_contexts().
  virtual bool keeps_contexts() const { return false; }
  virtual Status save_context(const std::string& path, std::string_view note);
  virtual Result<std::string> load_context(const std::string& path);
  void set_cancel(const CancelToken* token) {
    cancel_ = token;
  }  // polled within chunks: a runner stops soon, not at the end of a prompt

 protected:
  const CancelToken* cancel_ = nullptr;
};

// Keeps what of the context is a beginning of `ids`, all but the last id at most (whose logits have
// to be computed), and forgets the rest. Gives the new position: how many ids need no prefill.
Result<int64_t> reuse_prefix(Runner& runner, std::span<const int32_t> ids);
// Shared argument check of prefill.
Status check_prefill(const RunnerInfo& info, int64_t position, std::span<const int32_t> ids,
                     LogitsOf which, size_t logits_size);

}  // namespace pome
