#include "tokenizer/added_split.h"

#include <utility>

#include "tokenizer/unicode.h"

namespace pome {

AddedGroup::AddedGroup(std::vector<AddedToken> tokens, const std::vector<std::string>& texts,
                       const std::vector<bool>& special)
    : tokens_(std::move(tokens)) {
  std::vector<std::string_view> special_texts, plain_texts;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    (special[i] ? special_texts : plain_texts).push_back(texts[i]);
    (special[i] ? special_numbers_ : plain_numbers_).push_back(static_cast<uint32_t>(i));
  }
  special_ = TokenMatcher(special_texts);
  plain_ = TokenMatcher(plain_texts);
}

// Of the matches at each place the leftmost ones that do not overlap; at one place the longest, a
// special token before another one.
std::vector<AddedGroup::Found> AddedGroup::find(std::string_view text, bool parse_special,
                                                std::span<const TextRange> closed) const {
  using Matches = std::vector<TokenMatcher::Match>;
  Matches special = parse_special ? special_.longest_backwards(text, closed) : Matches();
  Matches plain = plain_.longest_backwards(text);
  std::vector<Found> out;
  size_t behind = 0;  // a match begins here or further on
  while (!special.empty() || !plain.empty()) {
    const bool take_special =
        plain.empty() ||
        (!special.empty() &&
         (special.back().begin < plain.back().begin ||
          (special.back().begin == plain.back().begin && special.back().end >= plain.back().end)));
    Matches& list = take_special ? special : plain;
    const TokenMatcher::Match match = list.back();
    list.pop_back();
    if (match.begin < behind) continue;
    behind = match.end;
    out.push_back(
        {match.begin, match.end, (take_special ? special_numbers_ : plain_numbers_)[match.number]});
  }
  return out;
}

size_t AddedGroup::space_before(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const Rune rune = decode_rune_before(text, end);
    if (!rune.valid || !is_white_space(rune.point) || end - rune.size < limit) break;
    end -= rune.size;
  }
  return end;
}

size_t AddedGroup::space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Rune rune = decode_rune(text, begin);
    if (!rune.valid || !is_white_space(rune.point)) break;
    begin += rune.size;
  }
  return begin;
}

bool AddedGroup::stands_alone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    const Rune before = decode_rune_before(text, begin);
    if (before.valid && is_word_character(before.point)) return false;
  }
  if (end < text.size()) {
    const Rune after = decode_rune(text, end);
    if (after.valid && is_word_character(after.point)) return false;
  }
  return true;
}

}  // namespace pome
