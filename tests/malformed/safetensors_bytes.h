// Builds safetensors files byte by byte, so that every field can be made wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "malformed/gguf_bytes.h"

namespace pome::malformed {

struct SafetensorsBytes {
  std::string header;
  uint64_t data_bytes = 0;
  std::optional<uint64_t> header_bytes;  // what the first field says

  std::string build() const {
    std::string out = le<uint64_t>(header_bytes.value_or(header.size())) + header;
    for (uint64_t i = 0; i < data_bytes; ++i) out += static_cast<char>(0x30 + i % 64);
    return out;
  }
};

inline std::string tensor_json(std::string_view name, std::string_view dtype,
                               std::string_view shape, std::string_view span) {
  return "\"" + std::string(name) + "\":{\"dtype\":\"" + std::string(dtype) +
         "\",\"shape\":" + std::string(shape) + ",\"data_offsets\":" + std::string(span) + "}";
}

// a: F32 [2, 3], b: BF16 [4], empty: I64 [0, 7], scalar: F16 []; 34 bytes of data.
inline SafetensorsBytes valid_safetensors() {
  return {"{\"__metadata__\":{\"format\":\"pt\"}," + tensor_json("b", "BF16", "[4]", "[24,32]") +
              "," + tensor_json("a", "F32", "[2, 3]", "[0,24]") + "," +
              tensor_json("scalar", "F16", "[]", "[32,34]") + "," +
              tensor_json("empty", "I64", "[0,7]", "[24,24]") + "}   ",
          34,
          {}};
}

}  // namespace pome::malformed
