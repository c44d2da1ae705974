// AVX-512 VNNI: products of many tokens with packed weights.
//
// 32 rows at a time become a panel of bytes, one for each of the two tiles. Then 12 tokens times 32
// rows are summed in 24 registers; a quad of x is broadcast to all rows.
#include <algorithm>

#include "kernels/packed/panel_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

namespace {

constexpr int64_t kGroup = kPanelColumns;  // columns that share a panel scale
constexpr int64_t kGroupBytes = kPanelGroupBytes;
constexpr int kTokens = 12;

struct PanelProduct {
  const std::byte* panel[2];
  int64_t groups;
  const Activations& x;
  float* y;  // of the first token and row
  int64_t ldy;
  __mmask16 mask[2];
  __m512 bias[2];
};

// M tokens from m0 on times N tiles of the panel.
template <int M, int N>
POME_TARGET_VNNI void multiply_panel(const PanelProduct& p, int64_t m0) {
  alignas(64) float total[M][N][16];
  const int64_t ldx = p.x.stride;
  const int8_t* x = p.x.high + m0 * ldx;
  const float* xs = p.x.scale + m0 * p.groups;
  const int32_t* sum = p.x.sum + m0 * p.groups;
  const std::byte* panel[2] = {p.panel[0], p.panel[1]};
  for (int64_t g = 0; g < p.groups; ++g) {
    Int32x16 part[M][N];
    POME_UNROLL
    for (int m = 0; m < M; ++m) {
      POME_UNROLL
      for (int n = 0; n < N; ++n)
        part[m][n] = (Int32x16)_mm512_set1_epi32(-128 * sum[m * p.groups + g]);
    }
    // Three tokens are addressed from one pointer.
    constexpr int kPointers = (M + 2) / 3;
    const int8_t* from[kPointers];
    POME_UNROLL
    for (int i = 0; i < kPointers; ++i) from[i] = x + g * kGroup + 3 * i * ldx;
    const std::byte* w0 = panel[0] + 64;
    const std::byte* w1 = panel[N - 1] + 64;
#pragma GCC unroll 2
    for (int t = 0; t < kGroup / 4; ++t) {
      __m512i w[N];
      w[0] = _mm512_loadu_si512(w0 + 64 * t);
      if constexpr (N == 2) w[1] = _mm512_loadu_si512(w1 + 64 * t);
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        int32_t four;
        __builtin_memcpy(&four, from[m / 3] + m % 3 * ldx + 4 * t, 4);
        const __m512i xs4 = _mm512_set1_epi32(four);
        POME_UNROLL
        for (int n = 0; n < N; ++n)
          part[m][n] = (Int32x16)_mm512_dpbusd_epi32((__m512i)part[m][n], w[n], xs4);
      }
    }
    POME_UNROLL
    for (int n = 0; n < N; ++n) {
      const __m512 unit = _mm512_loadu_ps(panel[n]);
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        const __m512 factor = _mm512_mul_ps(unit, _mm512_set1_ps(xs[m * p.groups + g]));
        const __m512 before = g == 0 ? p.bias[n] : _mm512_load_ps(total[m][n]);
        _mm512_store_ps(total[m][n],
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)part[m][n]), factor, before));
      }
    }
    panel[0] += kGroupBytes;
    panel[1] += kGroupBytes;
  }
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    POME_UNROLL
    for (int n = 0; n < N; ++n)
      _mm512_mask_storeu_ps(p.y + (m0 + m) * p.ldy + 16 * n, p.mask[n],
                            _mm512_load_ps(total[m][n]));
  }
}

template <int N>
POME_TARGET_VNNI void multiply_tokens(const PanelProduct& p) {
  int64_t m = 0;
  for (; m + kTokens <= p.x.m; m += kTokens) multiply_panel<kTokens, N>(p, m);
  for (; m + 8 <= p.x.m; m += 8) multiply_panel<8, N>(p, m);
  for (; m + 4 <= p.x.m; m += 4) multiply_panel<4, N>(p, m);
  for (; m + 2 <= p.x.m; m += 2) multiply_panel<2, N>(p, m);
  for (; m < p.x.m; ++m) multiply_panel<1, N>(p, m);
}

}  // namespace

POME_TARGET_VNNI void packed_gemm_avx512vnni(const ProductArgs& args) {
  const PackedLayout& layout = args.w.layout;
  const int64_t groups = args.x.columns / kGroup;
  for (int64_t tile = args.tile; tile < args.tile + args.tiles; tile += 2) {
    const int64_t tiles = std::min<int64_t>(2, args.tile + args.tiles - tile);
    std::byte* second = args.scratch + groups * kGroupBytes;
    PanelProduct p{{args.scratch, tiles == 2 ? second : args.scratch},
                   groups,
                   args.x,
                   args.y_at(0, tile * kTileRows),
                   args.ldy,
                   {},
                   {}};
    for (int64_t n = 0; n < tiles; ++n) {
      fill_panel_avx512(args.w, tile + n, PanelBytes::kUnsigned,
                        args.scratch + n * groups * kGroupBytes);
      const int64_t rows = std::min(kTileRows, layout.rows - (tile + n) * kTileRows);
      p.mask[n] = static_cast<__mmask16>((1u << rows) - 1);
      p.bias[n] = args.bias ? _mm512_maskz_loadu_ps(p.mask[n], args.bias + (tile + n) * kTileRows)
                            : _mm512_setzero_ps();
    }
    if (tiles == 2) {
      multiply_tokens<2>(p);
    } else {
      multiply_tokens<1>(p);
    }
  }
}

}  // namespace pome::kernels
#endif
