// Unicode for tokenizers: UTF-8 stepping, general categories, White_Space and simple case mapping,
// from tables that scripts/gen_unicode_tables writes.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pome {

inline constexpr char32_t kReplacement = 0xFFFD;

// General categories of the Unicode standard, section 4.5; kCn is "not assigned".
enum class Category : uint8_t {
  kCn,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo
};
// The category in the low five bits, and whether the character has the property White_Space.
inline constexpr uint8_t kWhiteSpaceBit = 0x20;
uint8_t char_kind(char32_t point);
inline Category category_of(char32_t point) {
  return static_cast<Category>(char_kind(point) & 0x1F);
}
constexpr bool is_letter(Category c) { return c >= Category::kLu && c <= Category::kLo; }
constexpr bool is_mark(Category c) { return c >= Category::kMn && c <= Category::kMe; }
constexpr bool is_number(Category c) { return c >= Category::kNd && c <= Category::kNo; }
constexpr bool is_punctuation(Category c) { return c >= Category::kPc && c <= Category::kPo; }
inline bool is_white_space(char32_t point) {  // the property White_Space: \s of a pattern
  return (char_kind(point) & kWhiteSpaceBit) != 0;
}
// \w of a Unicode-aware pattern: Alphabetic, marks, decimal numbers, connectors, joiners.
bool is_word_character(char32_t point);
// Simple (one to one) case mapping; a character without one maps to itself.
char32_t to_lower(char32_t point);
char32_t to_upper(char32_t point);

// One step through UTF-8. A byte that does not belong to a well-formed sequence is a rune of its
// own: valid == false, point == U+FFFD, size == 1.
struct Rune {
  char32_t point = kReplacement;
  uint8_t size = 1;
  bool valid = false;
};
Rune decode_rune(std::string_view text, size_t at);          // at < text.size()
Rune decode_rune_before(std::string_view text, size_t end);  // end > 0
void append_utf8(std::string& out, char32_t point);

// Well-formed text: each maximal ill-formed part becomes one U+FFFD (as Unicode 15 section 3.9
// recommends and Python's errors="replace" does).
std::string replace_invalid_utf8(std::string_view bytes);
// Length of the longest prefix that does not end inside a sequence that more bytes could complete.
size_t complete_prefix(std::string_view bytes);

}  // namespace pome
