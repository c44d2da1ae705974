// Base64 (RFC 4648, section 4). Pure function.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pome {

// nullopt unless the text is whole groups of four characters with the padding that its length
// needs and no bit set that belongs to no byte. An empty text is no bytes.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace pome
