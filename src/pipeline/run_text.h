// A text through a session, in windows of tokens that see each other and pieces that bound the
// logits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "graph/runner.h"

namespace pome {

// kUsage for a calibration text of less than two tokens.
inline Status check_text_length(size_t tokens) {
  if (tokens >= 2) return {};
  return usage_error("the calibration text has " + std::to_string(tokens) +
                     " tokens, at least 2 are needed");
}

// Calls use(first token, logits [tokens of the piece, vocab_size]) for every piece of at most
// `piece` tokens. Counts tokens for the progress of `work`, whose phase has begun.
template <typename Use>
Status run_text(Runner& runner, std::span<const int32_t> ids, int64_t window, int64_t piece,
                const WorkContext& work, const Use& use) {
  const auto vocab = static_cast<size_t>(runner.info().vocab_size);
  std::vector<float> logits(static_cast<size_t>(piece) * vocab);
  for (size_t begin = 0; begin < ids.size();) {
    const size_t place = begin % static_cast<size_t>(window);
    if (place == 0) POME_RETURN_IF_ERROR(runner.truncate(0));
    const size_t count = std::min(
        {static_cast<size_t>(piece), ids.size() - begin, static_cast<size_t>(window) - place});
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    const std::span<float> rows = std::span(logits).first(count * vocab);
    POME_RETURN_IF_ERROR(runner.prefill(ids.subspan(begin, count), LogitsOf::kAll, rows));
    use(begin, std::span<const float>(rows));
    begin += count;
    if (work.progress) work.progress->advance(begin);
  }
  return {};
}

}  // namespace pome
