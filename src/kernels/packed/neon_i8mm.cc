// NEON with products of 2 x 8 by 8 x 2 bytes (SMMLA): many tokens. Few tokens have nothing to gain
// from it, as half of every product would be thrown away.
#include <algorithm>

#include "kernels/packed/panel_neon.h"
#include "kernels/simd_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

constexpr int kRowPairs = kTileRows / 2;

// M tokens from m0 on times the panel. An odd last token is its own partner; what comes of that is
// not stored.
template <int M>
POME_TARGET_I8MM void multiply_pairs(const PanelProduct& p, int64_t m0) {
  constexpr int kPairs = (M + 1) / 2;
  float total[2 * kPairs][kTileRows];
  POME_UNROLL
  for (int m = 0; m < 2 * kPairs; ++m) std::copy(p.bias, p.bias + kTileRows, total[m]);
  const int64_t ldx = p.x.stride, second = M > 1 ? 1 : 0;
  const int8_t* x = p.x.high + m0 * ldx;
  const float* xs = p.x.scale + m0 * p.groups;
  for (int64_t g = 0; g < p.groups; ++g) {
    const std::byte* const panel = p.panel + g * kPanelGroupBytes;
    const auto* w = reinterpret_cast<const int8_t*>(panel + 64);
    int32x4_t part[kPairs][kRowPairs] = {};  // lanes: token, row = 00 01 10 11
    for (int c = 0; c < 8; ++c) {
      int8x16_t columns[kPairs];
      POME_UNROLL
      for (int i = 0; i < kPairs; ++i) {
        const int8_t* const at = x + 2 * i * ldx + g * kPanelColumns + 8 * c;
        columns[i] = vcombine_s8(vld1_s8(at), vld1_s8(at + second * ldx));
      }
      POME_UNROLL
      for (int r = 0; r < kRowPairs; ++r) {
        const int8x16_t ws = vld1q_s8(w + 128 * c + 16 * r);
        POME_UNROLL
        for (int i = 0; i < kPairs; ++i) part[i][r] = vmmlaq_s32(part[i][r], columns[i], ws);
      }
    }
    POME_UNROLL
    for (int r = 0; r < kRowPairs; r += 2) {
      const float32x4_t unit = vld1q_f32(reinterpret_cast<const float*>(panel) + 2 * r);
      POME_UNROLL
      for (int i = 0; i < kPairs; ++i) {
        const int64x2_t a = vreinterpretq_s64_s32(part[i][r]);
        const int64x2_t b = vreinterpretq_s64_s32(part[i][r + 1]);
        const int64x2_t of_token[2] = {vzip1q_s64(a, b), vzip2q_s64(a, b)};
        POME_UNROLL
        for (int j = 0; j < 2; ++j) {
          float* const sum = total[2 * i + j] + 2 * r;
          const float32x4_t factor = vmulq_n_f32(unit, xs[(2 * i + j * second) * p.groups + g]);
          const float32x4_t product = vcvtq_f32_s32(vreinterpretq_s32_s64(of_token[j]));
          vst1q_f32(sum, vfmaq_f32(vld1q_f32(sum), product, factor));
        }
      }
    }
  }
  POME_UNROLL
  for (int m = 0; m < M; ++m) std::copy(total[m], total[m] + p.rows, p.y + (m0 + m) * p.ldy);
}

void multiply_tokens(const PanelProduct& p, int64_t m0, int64_t m1) {
  int64_t m = m0;
  for (; m + 6 <= m1; m += 6) multiply_pairs<6>(p, m);
  for (; m + 2 <= m1; m += 2) multiply_pairs<2>(p, m);
  if (m < m1) multiply_pairs<1>(p, m);
}

}  // namespace

void packed_gemm_neon_i8mm(const ProductArgs& args) {
  multiply_tiles_neon(args, PanelOrder::kPairs, multiply_tokens);
}

}  // namespace pome::kernels
#endif
