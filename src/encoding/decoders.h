// Private to src/encoding: the decoders that the traits table points at, and the loop they share.
// Each decodes `blocks` consecutive blocks at `in` (no alignment needed) into `out`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/half.h"

namespace pome {

using BlockDecoder = void(const std::byte* in, int64_t blocks, float* out);

BlockDecoder decode_f32, decode_f16, decode_bf16, decode_f64;
BlockDecoder decode_i8, decode_i16, decode_i32, decode_i64;
BlockDecoder decode_f8e4m3, decode_f8e5m2;
BlockDecoder decode_q4_0, decode_q4_1, decode_q5_0, decode_q5_1, decode_q8_0;
BlockDecoder decode_q2_k, decode_q3_k, decode_q4_k, decode_q5_k, decode_q6_k;
BlockDecoder decode_iq2_xxs, decode_iq2_xs, decode_iq2_s, decode_iq3_xxs, decode_iq3_s;
BlockDecoder decode_iq1_s, decode_iq1_m, decode_iq4_nl, decode_iq4_xs;
BlockDecoder decode_tq1_0, decode_tq2_0, decode_q1_0, decode_q2_0;
BlockDecoder decode_mxfp4, decode_nvfp4;

// decode_one(const Block&, float* out) writes Block::kElements values.
template <typename Block, typename DecodeOne>
void for_each_block(const std::byte* in, int64_t blocks, float* out, const DecodeOne& decode_one) {
  for (int64_t i = 0; i < blocks; ++i) {
    Block block;
    std::memcpy(&block, in + i * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
    decode_one(block, out + i * Block::kElements);
  }
}

}  // namespace pome
