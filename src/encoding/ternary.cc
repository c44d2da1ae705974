// TQ1_0 and TQ2_0 (three levels), Q1_0 (two) and Q2_0 (four): one scale per block, no minimum.
#include "encoding/blocks.h"
#include "encoding/decoders.h"

namespace pome {
namespace {

// Digit n of `count` bytes, for n in [0, digits): out receives digits * count values.
float* put_digits(const uint8_t* bytes, int count, int digits, float d, float* out) {
  constexpr uint8_t kPower[5] = {1, 3, 9, 27, 81};
  for (int n = 0; n < digits; ++n) {
    for (int i = 0; i < count; ++i) {
      const int fraction = static_cast<uint8_t>(bytes[i] * kPower[n]);
      *out++ = d * static_cast<float>((fraction * 3 >> 8) - 1);
    }
  }
  return out;
}

}  // namespace

void decode_tq1_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockTQ1_0>(in, blocks, out, [](const BlockTQ1_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    to = put_digits(block.qs, 32, 5, d, to);
    to = put_digits(block.qs + 32, 16, 5, d, to);
    put_digits(block.qh, 4, 4, d, to);
  });
}

void decode_tq2_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockTQ2_0>(in, blocks, out, [](const BlockTQ2_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int part = 0; part < 8; ++part) {
      const uint8_t* qs = block.qs + 32 * (part / 4);
      const int shift = 2 * (part % 4);
      for (int l = 0; l < 32; ++l) {
        to[32 * part + l] = d * static_cast<float>((qs[l] >> shift & 3) - 1);
      }
    }
  });
}

void decode_q1_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ1_0>(in, blocks, out, [](const BlockQ1_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int e = 0; e < 128; ++e) to[e] = (block.qs[e / 8] >> (e % 8) & 1) != 0 ? d : -d;
  });
}

void decode_q2_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ2_0>(in, blocks, out, [](const BlockQ2_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int e = 0; e < 64; ++e) {
      to[e] = d * static_cast<float>((block.qs[e / 4] >> (2 * (e % 4)) & 3) - 1);
    }
  });
}

}  // namespace pome
