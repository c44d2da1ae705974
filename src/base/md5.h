// MD5 (RFC 1321): what some formats use to notice damage. No protection against intent.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pome {

class Md5 {
 public:
  void update(std::span<const std::byte> bytes);
  std::string finish();  // 32 hex digits; starts over

 private:
  void block(const std::byte* data);
  std::array<uint32_t, 4> state_ = kStart;
  std::array<std::byte, 64> buffer_{};
  uint64_t total_ = 0;

  static constexpr std::array<uint32_t, 4> kStart = {0x67452301, 0xefcdab89, 0x98badcfe,
                                                     0x10325476};
};

}  // namespace pome
