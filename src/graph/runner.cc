#include "graph/runner.h"

namespace pome {

Status check_prefill(const RunnerInfo& info, int64_t position, std::span<const int32_t> ids,
                     LogitsOf which, size_t logits_size) {
  const int64_t count = static_cast<int64_t>(ids.size());
  if (count > info.capacity - position)
    return usage_error(std::to_string(position + count) + " tokens do not fit the context of " +
                       std::to_string(info.capacity))
        .hint("shorten the text or use a larger --context");
  for (const int32_t id : ids)
    if (id < 0 || id >= info.vocab_size)
      return usage_error("token id " + std::to_string(id) + " is outside the vocabulary of " +
                         std::to_string(info.vocab_size));
  const int64_t rows = which == LogitsOf::kNone   ? 0
                       : which == LogitsOf::kLast ? std::min<int64_t>(1, count)
                                                  : count;
  POME_CHECK(logits_size == static_cast<size_t>(rows * info.vocab_size));
  return {};
}

}  // namespace pome
