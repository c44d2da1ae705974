// Regular expressions that no scanner knows. The library PCRE2 runs them, which the run-time half
// does not have: there they are refused by name.
//
// They are read as Oniguruma reads them (what Hugging Face tokenizers use) as far as the two agree;
// what they read differently is refused. Time is bounded by PCRE2's match limits, not linear; a
// text at which a limit is hit is not cut any further. Thread safety: immutable after construction.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/word_rule.h"

namespace pome {

class Regex {
 public:
  virtual ~Regex() = default;
  // All matches in order, those of no characters included; `out` is overwritten.
  virtual void find_all(std::string_view text, std::vector<TextSpan>& out) const = 0;
};

// kUnsupported (refusal kRegex) names a pattern that cannot be used, and why.
Result<std::shared_ptr<const Regex>> compile_regex(const std::string& pattern);

}  // namespace pome
