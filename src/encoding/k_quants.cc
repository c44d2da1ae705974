// Q2_K .. Q6_K: 256 weights, a scale (and minimum) per 16 or 32 of them that is itself quantised.
#include "encoding/blocks.h"
#include "encoding/decoders.h"

namespace pome {

void decode_q2_k(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ2_K>(in, blocks, out, [](const BlockQ2_K& block, float* to) {
    const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(block.scales[sub] & 15);
      const float min = dmin * static_cast<float>(block.scales[sub] >> 4);
      const uint8_t* qs = block.qs + 32 * (sub / 8) + 16 * (sub % 2);
      const int shift = 2 * (sub % 8 / 2);
      for (int l = 0; l < 16; ++l) {
        to[16 * sub + l] = scale * static_cast<float>(qs[l] >> shift & 3) - min;
      }
    }
  });
}

void decode_q3_k(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ3_K>(in, blocks, out, [](const BlockQ3_K& block, float* to) {
    const float d = f16_to_f32(block.d);
    int8_t scales[16];
    unpack_q3_k_scales(block.scales, scales);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]);
      const uint8_t* qs = block.qs + 32 * (sub / 8) + 16 * (sub % 2);
      const uint8_t* hmask = block.hmask + 16 * (sub % 2);
      const int shift = 2 * (sub % 8 / 2);
      for (int l = 0; l < 16; ++l) {
        const int high = hmask[l] >> (sub / 2) & 1;
        to[16 * sub + l] = scale * static_cast<float>((qs[l] >> shift & 3) - 4 + 4 * high);
      }
    }
  });
}

void decode_q4_k(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ4_K>(in, blocks, out, [](const BlockQ4_K& block, float* to) {
    const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
    uint8_t scales[8], mins[8];
    unpack_k_scales(block.scales, scales, mins);
    for (int sub = 0; sub < 8; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]);
      const float min = dmin * static_cast<float>(mins[sub]);
      const uint8_t* qs = block.qs + 32 * (sub / 2);
      const int shift = 4 * (sub % 2);
      for (int l = 0; l < 32; ++l) {
        to[32 * sub + l] = scale * static_cast<float>(qs[l] >> shift & 15) - min;
      }
    }
  });
}

void decode_q5_k(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ5_K>(in, blocks, out, [](const BlockQ5_K& block, float* to) {
    const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
    uint8_t scales[8], mins[8];
    unpack_k_scales(block.scales, scales, mins);
    for (int sub = 0; sub < 8; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]);
      const float min = dmin * static_cast<float>(mins[sub]);
      const uint8_t* qs = block.qs + 32 * (sub / 2);
      const int shift = 4 * (sub % 2);
      for (int l = 0; l < 32; ++l) {
        const int code = (qs[l] >> shift & 15) | (block.qh[l] >> sub & 1) << 4;
        to[32 * sub + l] = scale * static_cast<float>(code) - min;
      }
    }
  });
}

void decode_q6_k(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockQ6_K>(in, blocks, out, [](const BlockQ6_K& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(block.scales[sub]);
      const int t = sub % 8 / 2;
      const uint8_t* ql = block.ql + 64 * (sub / 8) + 32 * (t % 2) + 16 * (sub % 2);
      const uint8_t* qh = block.qh + 32 * (sub / 8) + 16 * (sub % 2);
      const int low_shift = t < 2 ? 0 : 4, high_shift = 2 * t;
      for (int l = 0; l < 16; ++l) {
        const int code = (ql[l] >> low_shift & 15) | (qh[l] >> high_shift & 3) << 4;
        to[16 * sub + l] = scale * static_cast<float>(code - 32);
      }
    }
  });
}

}  // namespace pome
