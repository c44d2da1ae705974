#include "tokenizer/byte_level.h"

#include <array>

#include "tokenizer/unicode.h"

namespace pome {
namespace {

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int16_t, 324> byte{};  // by character; -1 where there is none
  constexpr Alphabet() {
    byte.fill(-1);
    char32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      const char32_t point = printable ? static_cast<char32_t>(b) : next++;
      character[static_cast<size_t>(b)] = point;
      byte[point] = static_cast<int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

char32_t byte_level_character(uint8_t byte) { return kAlphabet.character[byte]; }

std::optional<uint8_t> byte_of_character(char32_t point) {
  if (point >= kAlphabet.byte.size() || kAlphabet.byte[point] < 0) return std::nullopt;
  return static_cast<uint8_t>(kAlphabet.byte[point]);
}

bool append_bytes_of_token(std::string_view token, std::string& out) {
  const size_t before = out.size();
  for (size_t i = 0; i < token.size();) {
    const auto lead = static_cast<uint8_t>(token[i]);
    if (lead > ' ' && lead < 127) {
      out.push_back(token[i++]);
      continue;
    }
    const Rune rune = decode_rune(token, i);
    const std::optional<uint8_t> byte = byte_of_character(rune.point);
    if (!rune.valid || !byte) {
      out.resize(before);
      out.append(token);
      return false;
    }
    out.push_back(static_cast<char>(*byte));
    i += rune.size;
  }
  return true;
}

std::optional<std::string> bytes_of_token(std::string_view token) {
  std::string out;
  if (!append_bytes_of_token(token, out)) return std::nullopt;
  return out;
}

std::string token_of_bytes(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const char32_t point = byte_level_character(static_cast<uint8_t>(c));
    if (point < 0x80) {
      out.push_back(static_cast<char>(point));
    } else {
      append_utf8(out, point);
    }
  }
  return out;
}

std::optional<uint8_t> byte_of_placeholder(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    int digit = 0;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else {
      return std::nullopt;
    }
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

}  // namespace pome
