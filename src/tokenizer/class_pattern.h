// Patterns that are runs of one class of characters: "\p{N}", "\p{N}{1,3}", "[0-9][0-9][0-9]",
// " {2,}", "\s?\p{L}+", " ?[^(\s|.,!?)]+", "[^\n]+|[\n]+", "\s+$". They are matched by a scanner
// whose time is linear in the text.
//
// Thread safety: immutable values.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/word_rule.h"

namespace pome {

class ClassPattern {
 public:
  // nullopt: something else.
  static std::optional<ClassPattern> parse(std::string_view pattern);
  // As a WordScanner.
  TextSpan next(std::string_view text, size_t at) const;

 private:
  struct Set {
    bool negated = false;
    uint32_t categories = 0;  // a bit for each Category
    bool white_space = false;
    std::vector<std::pair<char32_t, char32_t>> ranges;
    bool ascii[128] = {};  // what holds() says
    bool find(char32_t point) const;
    bool holds(char32_t point) const { return point < 128 ? ascii[point] : find(point); }
  };
  struct Run {
    std::optional<Set> before;  // one such character may stand in front
    Set set;
    size_t least = 1, most = 1;
    bool at_end = false;  // only at the end of the text or before a newline; the only alternative
  };
  friend class ClassPatternParser;
  static size_t match(const Run& run, std::string_view text, size_t at);
  TextSpan next_at_end(std::string_view text, size_t at) const;
  std::vector<Run> runs_;  // alternatives
};

}  // namespace pome
