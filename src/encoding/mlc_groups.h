// Groups of 32 four-bit weights as MLC stores them ("q4f16_1"), and the same groups as kInt.
//
//   MLC    4 words u32, element i in bits 4 (i % 8) of word i / 8, lowest first; code q 0..15
//          f16 scale                                    value = (q - 7) * scale
//   kInt   16 bytes, element i in nibble i, two's complement -8..7
//          f16 scale                                    value = code * scale
//
// Both have 16 codes, one of which has no counterpart of the other sign: +8 there, -8 here. Groups
// without it keep their scale and q = code + 7; groups with it change the sign of the scale, and
// q = 7 - code. That is one to one in both directions: nothing is rounded, and no decoded value
// changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pome {

inline constexpr int64_t kMlcGroup = 32;       // elements
inline constexpr int64_t kMlcGroupBytes = 16;  // of codes, in both forms
inline constexpr int kMlcZero = 7;             // the code of 0

// Codes and scales of `scales.size()` groups, in place.
void int4_to_mlc(std::span<std::byte> codes, std::span<uint16_t> scales);
void mlc_to_int4(std::span<std::byte> codes, std::span<uint16_t> scales);

}  // namespace pome
