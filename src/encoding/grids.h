// The fixed point sets of the IQ encodings. Built on first use from one bit per possible point;
// thread safe.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

namespace pome {

using GridPoint8 = std::array<int8_t, 8>;
using GridPoint4 = std::array<int8_t, 4>;

std::span<const GridPoint8, 256> iq2_xxs_grid();  // magnitudes 8, 25, 43
std::span<const GridPoint8, 512> iq2_xs_grid();
std::span<const GridPoint8, 1024> iq2_s_grid();
std::span<const GridPoint4, 256> iq3_xxs_grid();  // magnitudes 4, 12 .. 52, 62
std::span<const GridPoint4, 512> iq3_s_grid();    // magnitudes 1, 3 .. 15
std::span<const GridPoint8, 2048> iq1_grid();     // -1, 0, 1; shared by IQ1_S and IQ1_M

// Eight sign bits from seven: an even number of them is set.
inline uint8_t grid_signs(uint32_t packed) {
  packed &= 127;
  return static_cast<uint8_t>(packed | (static_cast<uint32_t>(std::popcount(packed) & 1) << 7));
}

}  // namespace pome
