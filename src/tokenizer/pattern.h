// A compiled TextPattern: a text, a scanner that stands for a published pattern, or a regular
// expression.
//
// Thread safety: immutable values; the scratch vector is the caller's.
#pragma once

#include <memory>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tokenizer/class_pattern.h"
#include "tokenizer/regex.h"
#include "tokenizer/tokenizer_steps.h"
#include "tokenizer/word_rule.h"

namespace pome {

// The pattern of GPT-2, which the ByteLevel pre-tokenizer has built in.
std::string_view gpt2_pattern();

class Pattern {
 public:
  // kUnsupported (refusal kRegex) names a pattern that cannot be used.
  static Result<Pattern> compile(const TextPattern& pattern);
  static Pattern of_rule(const WordRule& rule) { return Pattern(Word{rule, scanner_of(rule)}); }

  // Calls on_match(TextSpan) for the matches in order. `scratch` is used by regular expressions.
  template <typename OnMatch>
  void each_match(std::string_view text, std::vector<TextSpan>& scratch,
                  const OnMatch& on_match) const {
    if (const auto* regex = std::get_if<std::shared_ptr<const Regex>>(&kind_)) {
      (*regex)->find_all(text, scratch);
      for (const TextSpan& match : scratch) on_match(match);
      return;
    }
    for (size_t at = 0; at < text.size();) {
      const TextSpan match = next(text, at);
      if (match.begin == match.end) return;
      on_match(match);
      at = match.end;
    }
  }
  // nullptr: the pattern is no word rule.
  const WordRule* word_rule() const {
    const auto* word = std::get_if<Word>(&kind_);
    return word ? &word->rule : nullptr;
  }
  bool is_regex() const { return std::holds_alternative<std::shared_ptr<const Regex>>(kind_); }

 private:
  struct Literal {
    std::string text;
  };
  struct Word {
    WordRule rule;
    WordScanner scan;
  };
  using Kind = std::variant<Literal, Word, ClassPattern, std::shared_ptr<const Regex>>;
  explicit Pattern(Kind kind) : kind_(std::move(kind)) {}
  TextSpan next(std::string_view text, size_t at) const;  // not for regular expressions
  Kind kind_;
};

}  // namespace pome
