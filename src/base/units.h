// Sizes as people write them: GB = 10^9 bytes, GiB = 2^30.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pome {

std::string human_bytes(uint64_t bytes);  // "12.3 MB"
// "3GB", "1.5 GiB", "800 MB", "4096"; kUsage, naming `what`.
Result<uint64_t> parse_bytes(std::string_view text, const std::string& what);

}  // namespace pome
