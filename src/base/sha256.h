// SHA-256 (FIPS 180-4). Uses the processor's SHA instructions where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pome {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  void update_u64(uint64_t value);  // 8 bytes, little-endian: for unambiguous framing
  Digest finish();                  // and starts over

 private:
  void blocks(const uint8_t* data, size_t count);
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> buffer_{};
  uint64_t total_ = 0;
};

Digest sha256(std::span<const std::byte> bytes);
Digest sha256(std::string_view text);
std::string to_hex(const Digest& digest);

namespace detail {
// `count` blocks of 64 bytes; lets tests hold the portable code against the instructions.
void sha256_blocks(uint32_t* state, const uint8_t* data, size_t count, bool allow_sha_ni);
}  // namespace detail

}  // namespace pome
