// From codes and scales to the bytes of one block: the inverse of the decoders.
//
// Codes stand in the order of the weights, one byte each, as the decode rules of blocks.h take
// them, shifted to start at 0: q + 8 for Q4_0, q + 4 for Q3_K, q + 32 for Q6_K, the index of the
// level for IQ4 and MXFP4. Scales are the integers of the rule, `d` and `dmin` binary16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "encoding/encoding.h"

namespace pome {

struct BlockScales {
  uint16_t d = 0, dmin = 0;  // MXFP4: d is the exponent byte
  int16_t scales[16] = {};   // per sub-block of 16 or 32 weights
  int16_t mins[16] = {};
};
struct BlockCodes : BlockScales {
  uint8_t codes[256] = {};
};

// Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 (code + 128) Q2_K .. Q6_K IQ4_NL IQ4_XS MXFP4.
bool can_pack(EncodingKind kind);
// Writes traits(kind).block_bytes bytes.
void pack_block(EncodingKind kind, const BlockCodes& block, std::byte* out);

}  // namespace pome
