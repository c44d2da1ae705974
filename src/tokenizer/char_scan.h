// Stepping through text by classes of characters, with a fast path for ASCII: what the scanners
// that stand for patterns are made of.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer/unicode.h"

namespace pome::scan {

// Sets of characters are masks of these. A character that none of them holds (controls, unassigned
// code points) has no bit. Broken bytes count as symbols, as U+FFFD is one.
enum : uint8_t {
  kUpper = 1,        // Lu, Lt
  kLower = 2,        // Ll
  kOtherLetter = 4,  // Lm, Lo
  kMark = 8,
  kNumber = 16,
  kSpace = 32,  // White_Space
  kPunctuation = 64,
  kSymbol = 128,
  kLetter = kUpper | kLower | kOtherLetter
};

constexpr uint8_t bits_of_kind(uint8_t kind) {
  if ((kind & kWhiteSpaceBit) != 0) return kSpace;
  const auto category = static_cast<Category>(kind & 0x1F);
  if (category == Category::kLu || category == Category::kLt) return kUpper;
  if (category == Category::kLl) return kLower;
  if (is_letter(category)) return kOtherLetter;
  if (is_mark(category)) return kMark;
  if (is_number(category)) return kNumber;
  if (is_punctuation(category)) return kPunctuation;
  return category >= Category::kSm && category <= Category::kSo ? kSymbol : 0;
}

inline constexpr std::array<uint8_t, 64> kBitsOfKind = [] {
  std::array<uint8_t, 64> bits{};
  for (uint8_t kind = 0; kind < 64; ++kind) bits[kind] = bits_of_kind(kind);
  return bits;
}();

inline constexpr std::array<uint8_t, 128> kAsciiBits = [] {
  std::array<uint8_t, 128> bits{};
  for (uint8_t c = 0; c < 128; ++c) {
    const std::string_view symbols = "$+<=>^`|~";
    if (c >= 'A' && c <= 'Z') {
      bits[c] = kUpper;
    } else if (c >= 'a' && c <= 'z') {
      bits[c] = kLower;
    } else if (c >= '0' && c <= '9') {
      bits[c] = kNumber;
    } else if (c == ' ' || (c >= 9 && c <= 13)) {
      bits[c] = kSpace;
    } else if (symbols.find(static_cast<char>(c)) != std::string_view::npos) {
      bits[c] = kSymbol;
    } else if (c > ' ' && c < 127) {
      bits[c] = kPunctuation;
    }
  }
  return bits;
}();

// The same by byte: bytes that are not ASCII are in no set, or (`inside` false) in all.
template <bool inside>
inline constexpr std::array<uint8_t, 256> kByteBits = [] {
  std::array<uint8_t, 256> bits{};
  for (size_t c = 0; c < 256; ++c) {
    bits[c] = c < 128 ? kAsciiBits[c] : static_cast<uint8_t>(inside ? 0 : 0xFF);
  }
  return bits;
}();

struct Char {
  char32_t point = 0;
  uint8_t size = 0;  // 0: the end of the text
  uint8_t bits = 0;
  bool is(uint8_t mask) const { return (bits & mask) != 0; }
  bool is_newline() const { return size != 0 && (point == '\n' || point == '\r'); }
};

inline Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const auto byte = static_cast<uint8_t>(text[at]);
  if (byte < 128) return {byte, 1, kAsciiBits[byte]};
  const Rune rune = decode_rune(text, at);
  if (!rune.valid) return {rune.point, 1, kSymbol};
  return {rune.point, rune.size, kBitsOfKind[char_kind(rune.point)]};
}

// End of the run of characters of the set, or (`inside` false) of characters outside of it.
template <bool inside = true>
inline size_t skip(std::string_view text, size_t at, uint8_t mask) {
  const size_t size = text.size();
  while (true) {
    // A byte that is not ASCII ends the fast loop either way.
    while (at < size &&
           ((kByteBits<inside>[static_cast<uint8_t>(text[at])] & mask) != 0) == inside) {
      ++at;
    }
    if (at >= size || static_cast<uint8_t>(text[at]) < 128) return at;
    const Char c = char_at(text, at);
    if (c.is(mask) != inside) return at;
    at += c.size;
  }
}

}  // namespace pome::scan
