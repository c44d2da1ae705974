#include "graph/runner.h"

#include <algorithm>

namespace pome {

Status Runner::save_context(const std::string&, std::string_view) {
  return unsupported("a context of the " + info().kind + " runner cannot be kept in a file");
}
Result<std::string> Runner::load_context(const std::string&) {
  return unsupported("a context of the " + info().kind + " runner cannot be kept in a file");
}

Result<int64_t> reuse_prefix(Runner& runner, std::span<const int32_t> ids) {
  const auto history = runner.history();
  const size_t most = std::min(history.size(), ids.empty() ? 0 : ids.size() - 1);
  const auto from = ids.begin();
  int64_t same =
      std::mismatch(from, from + static_cast<ptrdiff_t>(most), history.begin()).first - from;
  if (!runner.can_truncate(same)) same = 0;
  POME_RETURN_IF_ERROR(runner.truncate(same));
  return same;
}

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
