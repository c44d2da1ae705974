// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: 32 weights with one scale, and a minimum in the _1 types.
#include "encoding/blocks.h"
#include "encoding/decoders.h"

namespace pome {
namespace {

// The codes of a five-bit block, in order of the weights.
void unpack_five_bits(const uint8_t (&high)[4], const uint8_t (&qs)[16], int (&codes)[32]) {
  uint32_t bits;
  std::memcpy(&bits, high, sizeof bits);
  for (int j = 0; j < 16; ++j) {
    codes[j] = (qs[j] & 15) | static_cast<int>((bits >> j & 1) << 4);
    codes[j + 16] = (qs[j] >> 4) | static_cast<int>((bits >> (j + 16) & 1) << 4);
  }
}

}  // namespace

void decode_q4_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ4_0>(in, blocks, out, [](const BlockQ4_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 16; ++j) {
      to[j] = d * static_cast<float>((block.qs[j] & 15) - 8);
      to[j + 16] = d * static_cast<float>((block.qs[j] >> 4) - 8);
    }
  });
}

void decode_q4_1(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ4_1>(in, blocks, out, [](const BlockQ4_1& block, float* to) {
    const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
    for (int j = 0; j < 16; ++j) {
      to[j] = d * static_cast<float>(block.qs[j] & 15) + m;
      to[j + 16] = d * static_cast<float>(block.qs[j] >> 4) + m;
    }
  });
}

void decode_q5_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ5_0>(in, blocks, out, [](const BlockQ5_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    int codes[32];
    unpack_five_bits(block.qh, block.qs, codes);
    for (int j = 0; j < 32; ++j) to[j] = d * static_cast<float>(codes[j] - 16);
  });
}

void decode_q5_1(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ5_1>(in, blocks, out, [](const BlockQ5_1& block, float* to) {
    const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
    int codes[32];
    unpack_five_bits(block.qh, block.qs, codes);
    for (int j = 0; j < 32; ++j) to[j] = d * static_cast<float>(codes[j]) + m;
  });
}

void decode_q8_0(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ8_0>(in, blocks, out, [](const BlockQ8_0& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 32; ++j) to[j] = d * static_cast<float>(block.qs[j]);
  });
}

}  // namespace pome
