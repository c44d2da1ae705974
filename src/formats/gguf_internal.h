// Shared by the parts of the GGUF reader.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace pome::gguf {

inline std::string in_quotes(std::string_view text) {
  return "\"" + escape_for_terminal(text, 80) + "\"";
}

// Checks where the data of all tensors lies and makes the offsets, which the file counts from the
// start of its data section, absolute. `info_offsets`: where each tensor is described, for
// messages.
Status place_tensors(GgufFile& file, uint64_t header_end, const std::vector<uint64_t>& info_offsets,
                     bool strict);

}  // namespace pome::gguf
