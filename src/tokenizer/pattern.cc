#include "tokenizer/pattern.h"

#include <string>
#include <utility>

namespace pome {
namespace {

// Looking for a text costs up to its length at each place.
constexpr size_t kMaxLiteral = 1024;

}  // namespace

std::string_view gpt2_pattern() {
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
}

Result<Pattern> Pattern::compile(const TextPattern& pattern) {
  if (pattern.text.empty()) return bad_input(Refusal::kRange, "an empty pattern");
  if (!pattern.regex) {
    if (pattern.text.size() > kMaxLiteral) {
      return bad_input(Refusal::kLimit, "a text of " + std::to_string(pattern.text.size()) +
                                            " bytes to look for; at most 1024 are allowed");
    }
    return Pattern(Literal{pattern.text});
  }
  if (const auto rule = parse_word_rule(pattern.text)) return of_rule(*rule);
  if (auto runs = ClassPattern::parse(pattern.text)) return Pattern(*std::move(runs));
  POME_ASSIGN_OR_RETURN(auto regex, compile_regex(pattern.text));
  return Pattern(std::move(regex));
}

TextSpan Pattern::next(std::string_view text, size_t at) const {
  if (const auto* word = std::get_if<Word>(&kind_)) return word->scan(word->rule, text, at);
  if (const auto* runs = std::get_if<ClassPattern>(&kind_)) return runs->next(text, at);
  const std::string& literal = std::get<Literal>(kind_).text;
  const size_t found = text.find(literal, at);
  if (found == std::string_view::npos) return {text.size(), text.size()};
  return {found, found + literal.size()};
}

}  // namespace pome
