// Pre-tokenisation: cuts text into the pieces inside which BPE merges, with hand-written scanners
// that match what the published patterns match and look at every character a bounded number of
// times.
//
// The patterns are those of the tokenizer.json files of GPT-2, Llama 3 and Qwen 2 and the digit
// splitters that some models put in front. An unknown pattern is refused by name: a pattern engine
// would not have linear time.
// Thread safety: immutable values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pome {

enum class SplitRule : uint8_t {
  kGpt2,
  kLlama3,     // contractions in any case, up to three digits, newlines end a piece
  kQwen2,      // as Llama 3 with single digits
  kNumber,     // every \p{N} is a piece
  kNumberRun,  // every run of \p{N} is a piece
};

// The pattern text of a rule, as tokenizer.json spells it.
std::string_view pattern_of(SplitRule rule);
std::optional<SplitRule> rule_of_pattern(std::string_view pattern);

// End of the piece of `text` that begins at `at` (< text.size()); always > at.
size_t next_piece(SplitRule rule, std::string_view text, size_t at);

class PreTokenizer {
 public:
  // `name` as GGUF has it in tokenizer.ggml.pre, or `patterns` applied one inside the other; both
  // empty: no cutting. kUnsupported (refusal kRegex) names what is not known.
  static Result<PreTokenizer> create(std::string_view name,
                                     const std::vector<std::string>& patterns);

  // Calls emit(std::string_view) for each piece in order. The pieces cover the text.
  template <typename Emit>
  void split(std::string_view text, const Emit& emit, size_t stage = 0) const {
    if (stage == rules_.size()) {
      emit(text);
      return;
    }
    for (size_t at = 0; at < text.size();) {
      const size_t end = next_piece(rules_[stage], text, at);
      const std::string_view piece = text.substr(at, end - at);
      if (stage + 1 == rules_.size()) {
        emit(piece);
      } else {
        split(piece, emit, stage + 1);
      }
      at = end;
    }
  }
  const std::vector<SplitRule>& rules() const { return rules_; }

 private:
  std::vector<SplitRule> rules_;
};

}  // namespace pome
