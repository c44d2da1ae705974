// What --quality and --calibrate mean: how much work rounding may cost, and on which text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "pipeline/streamed.h"
#include "tokenizer/tokenizer.h"

namespace pome {

// The text that is used where no other is given (data/calibration.txt, embedded by the build).
std::string_view calibration_text();

// fast: no text, values are rounded to the nearest. good: one pass over a text, error feedback.
// best: behind quantised layers, more tokens, codes and tables refined.
enum class Quality : uint8_t { kFast, kGood, kBest };
// "": good where there is a text, else fast. kUsage for an unknown name, and for fast with a text.
Result<Quality> parse_quality(std::string_view name, bool has_text);
std::string_view to_string(Quality quality);
int64_t default_tokens(Quality quality);
int64_t window_of(const Graph& graph);  // tokens of the text that see each other
StreamOptions stream_options(Quality quality, const Graph& graph);

// The first tokens of a text, `most` at most, in windows that begin as the model's texts do. `path`
// "": the built-in text, its conversations as the chat template of the model writes them where
// there is one. kBadInput where it is not UTF-8.
struct CalibrationText {
  std::string name, digest;  // for reports; SHA-256 of the ids
  std::vector<int32_t> ids;
};
Result<CalibrationText> read_calibration_text(const std::string& path, const Tokenizer& tokenizer,
                                              const TokenizerSource& source, int64_t most,
                                              int64_t window);

// kUsage where a checkpoint has no tokenizer to read a text with, and why it has none.
Status check_has_tokenizer(const Checkpoint& checkpoint);

// "best quality: 8192 tokens through 17 layers, about 12 min and 1.4 GB": the speed is measured on
// the spot.
std::string describe(const StreamEstimate& estimate, Quality quality, int64_t tokens, int threads);

}  // namespace pome
