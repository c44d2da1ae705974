#include "encoding/mlc_groups.h"

#include <bit>
#include <cstring>

#include "base/status.h"

namespace pome {

namespace {

constexpr uint64_t kOnes = 0x1111111111111111u;
constexpr uint16_t kSign = 0x8000;

// Whether one of 16 nibbles is `value`.
bool has_nibble(uint64_t nibbles, uint64_t value) {
  const uint64_t x = nibbles ^ value * kOnes;  // the wanted ones are 0 now
  const uint64_t low = (x | x >> 1 | x >> 2 | x >> 3) & kOnes;
  return low != kOnes;
}

// nibble by nibble, modulo 16
uint64_t add(uint64_t nibbles, uint64_t value) {
  constexpr uint64_t kLow = 0x0F0F0F0F0F0F0F0Fu;
  const uint64_t both = value * 0x0101010101010101u;
  return (((nibbles & kLow) + both) & kLow) | ((((nibbles >> 4) & kLow) + both) & kLow) << 4;
}

// `alone`: the value whose negative the target does not have; `shift`: added where it is absent.
// With it: x becomes `from` - x.
void convert(std::span<std::byte> codes, std::span<uint16_t> scales, uint64_t alone, uint64_t shift,
             uint64_t from) {
  static_assert(std::endian::native == std::endian::little);
  POME_CHECK(codes.size() == scales.size() * static_cast<size_t>(kMlcGroupBytes));
  for (size_t group = 0; group < scales.size(); ++group) {
    uint64_t halves[2];
    std::byte* at = codes.data() + group * sizeof halves;
    std::memcpy(halves, at, sizeof halves);
    const bool turned = has_nibble(halves[0], alone) || has_nibble(halves[1], alone);
    // from - x = (from + 1) + ~x modulo 16
    for (uint64_t& half : halves) half = turned ? add(~half, from + 1) : add(half, shift);
    if (turned) scales[group] ^= kSign;
    std::memcpy(at, halves, sizeof halves);
  }
}

}  // namespace

void int4_to_mlc(std::span<std::byte> codes, std::span<uint16_t> scales) {
  convert(codes, scales, 8, kMlcZero, kMlcZero);
}

void mlc_to_int4(std::span<std::byte> codes, std::span<uint16_t> scales) {
  convert(codes, scales, 15, 16 - kMlcZero, kMlcZero);
}

}  // namespace pome
