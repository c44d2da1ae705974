// Blocks whose weights are s q + m, q of four bits, with a scale s and a minimum m for each 32 of
// them: Q4_1 and Q4_K, taken apart for targets that say the same in other places.
#pragma once

#include <cstddef>
#include <cstdint>

#include "encoding/encoding.h"

namespace pome {

inline constexpr int64_t kAffineGroup = 32;  // weights that share s and m

bool is_affine4(EncodingKind kind);
// `blocks` consecutive ones of a kind that is_affine4. codes: neighbours share a byte, the first in
// its low half. scales, minima: one for each group; s q + m in binary32 is what the decoder gives,
// bit for bit.
void split_affine4(EncodingKind kind, const std::byte* in, int64_t blocks, uint8_t* codes,
                   float* scales, float* minima);

}  // namespace pome
