// NEON without dot products: quantising activations, and the products for older processors.
#include <algorithm>
#include <limits>

#include "kernels/packed/panel_neon.h"
#include "kernels/packed/unpack_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

struct Dot {
  static constexpr int kTokens = 4;
  template <int kLane, bool kWide>
  static POME_INLINE_NEON int32x4_t of(int32x4_t sum, int8x16_t w, int8x16_t x) {
    const int8x16_t quad = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), kLane));
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(quad));
    const int16x8_t high = vmull_high_s8(w, quad);
    // Two products fill 16 bits, and overflow where both factors may be -128.
    if constexpr (kWide) {
      return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
    } else {
      return vpadalq_s16(sum, vpaddq_s16(low, high));
    }
  }
};

#define POME_NEON_TARGET
#include "kernels/packed/products_neon.inc"
#undef POME_NEON_TARGET

}  // namespace

void packed_gemv_neon(const ProductArgs& args) { with_format(args.w.format, Gemv{args}); }
void packed_gemm_neon(const ProductArgs& args) {
  multiply_tiles_neon(args, PanelOrder::kQuads, multiply_tokens);
}

void quantize_neon(const float* x, int64_t columns, const Activations& to, int64_t row) {
  const bool fine = to.bits == ActivationBits::kFine;
  const float steps = fine ? 127.0f * 256.0f : 127.0f;
  int8_t* high = to.high + row * to.stride;
  const int64_t per_sum = to.columns / to.sums();
  const auto vectors = static_cast<int>(to.block / 8);
  for (int64_t begin = 0; begin < to.columns; begin += to.block) {
    F8 values[kPanelColumns / 8];
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < vectors; ++i) {
      const int64_t k = begin + 8 * i, rest = columns - k;
      values[i] = rest >= 8 ? load8(x + k) : load_first8(x + k, rest);
      // Compared as bits: NaN is larger than infinity, infinity than all numbers.
      for (const float32x4_t v : {values[i].low, values[i].high})
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(v)));
    }
    const uint32_t bits = vmaxvq_u32(largest);
    const bool finite = bits < 0x7F800000u;
    float size;
    std::memcpy(&size, &bits, 4);
    const float scale = finite ? size / steps : std::numeric_limits<float>::quiet_NaN();
    const float inverse = finite && size >= 1e-33f ? steps / size : 0.0f;
    to.scale[row * to.scales() + begin / to.block] = scale;
    int32_t sum = 0;
    for (int i = 0; i < vectors; ++i) {
      const int64_t k = begin + 8 * i;
      int32x4_t low = vdupq_n_s32(0), above = low;
      if (inverse > 0) {
        low = vcvtnq_s32_f32(vmulq_n_f32(values[i].low, inverse));
        above = vcvtnq_s32_f32(vmulq_n_f32(values[i].high, inverse));
      }
      const int16x8_t v = vcombine_s16(vmovn_s32(low), vmovn_s32(above));
      if (fine) {
        vst1_s8(to.low + row * to.stride + k, vmovn_s16(v));
        // (v + 128) >> 8
        vst1_s8(high + k, vrshrn_n_s16(v, 8));
      } else {
        vst1_s8(high + k, vmovn_s16(v));
      }
      sum += vaddlvq_s16(v);
      if ((k + 8) % per_sum != 0) continue;
      to.sum[row * to.sums() + k / per_sum] = sum;
      to.scaled_sum[row * to.sums() + k / per_sum] = scale * static_cast<float>(sum);
      sum = 0;
    }
  }
}

}  // namespace pome::kernels
#endif
