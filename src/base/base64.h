// Base64 (RFC 4648, section 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pome {

// nullopt for anything but groups of four of the alphabet, the last of them padded with '='.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace pome
