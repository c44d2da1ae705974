// Builds tiktoken files line by line. Shares nothing with the reader.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pome::malformed {

inline std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += i + k > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * k) & 63];
    }
  }
  return out;
}

inline std::string tiktoken_line(std::string_view bytes, uint64_t rank) {
  return base64(bytes) + " " + std::to_string(rank) + "\n";
}

// The 256 bytes, "ab", and made-up tokens of three bytes up to `tokens` in all: the number tells a
// reader which encoding it is.
inline std::vector<std::string> tiktoken_lines(size_t tokens) {
  std::vector<std::string> out;
  for (size_t rank = 0; rank < tokens; ++rank) {
    std::string bytes(1, static_cast<char>(rank));
    if (rank == 256) bytes = "ab";
    if (rank > 256) {
      bytes = {'\x01', static_cast<char>(rank >> 16), static_cast<char>(rank >> 8),
               static_cast<char>(rank)};
    }
    out.push_back(tiktoken_line(bytes, rank));
  }
  return out;
}

inline std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line;
  return out;
}

}  // namespace pome::malformed
