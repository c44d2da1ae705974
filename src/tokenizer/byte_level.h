// The byte-level alphabet of GPT-2: each byte is written as one printable character
// (bytes_to_unicode of the published encoder): 33..126, 161..172 and 174..255 stand for themselves,
// the others are U+0100, U+0101 ... in order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pome {

char32_t byte_level_character(uint8_t byte);
std::optional<uint8_t> byte_of_character(char32_t point);
// Bytes that a token of the byte-level alphabet stands for; nullopt where it holds a character from
// outside.
std::optional<std::string> bytes_of_token(std::string_view token);
// The same at the end of `out`; the text of the token and false where it holds such a character.
bool append_bytes_of_token(std::string_view token, std::string& out);
std::string token_of_bytes(std::string_view bytes);
// The byte of "<0x0A>" (two hexadecimal digits).
std::optional<uint8_t> byte_of_placeholder(std::string_view token);

}  // namespace pome
