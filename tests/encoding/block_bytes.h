// Helpers of the encoding tests: building blocks byte by byte and decoding them.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "encoding/encoding.h"

namespace pome::testing {

using Bytes = std::vector<std::byte>;

inline void put_u16(Bytes& bytes, size_t offset, uint16_t value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}
inline void put_u32(Bytes& bytes, size_t offset, uint32_t value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}
inline Bytes zero_block(EncodingKind kind) {
  return Bytes(static_cast<size_t>(traits(kind).block_bytes));
}
inline Bytes from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  Bytes bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(digit(hex[2 * i]) * 16 + digit(hex[2 * i + 1]));
  }
  return bytes;
}
inline std::vector<float> decode_blocks(EncodingKind kind, const Bytes& bytes) {
  const EncodingTraits& type = traits(kind);
  const size_t blocks = bytes.size() / static_cast<size_t>(type.block_bytes);
  std::vector<float> out(blocks * static_cast<size_t>(type.block_elements));
  type.decode(bytes.data(), static_cast<int64_t>(blocks), out.data());
  return out;
}

}  // namespace pome::testing
