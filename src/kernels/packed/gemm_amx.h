// AMX int8: products of many tokens with packed weights.
//
// 64 columns, those that share a scale of the panel and of x, are just what a tile holds, and the
// quads of a panel are the rows of one. So a step multiplies 16 tokens by 16 rows over 64 columns,
// all of it in use, and its 256 sums are scaled in f32 as they leave the tile; while that goes on,
// the tiles work on the next 64 columns. The floats are those of AVX-512 VNNI: same bits.
#pragma once

#include <algorithm>

#include "kernels/amx.h"
#include "kernels/packed/panel_avx512.h"

#if defined(POME_HAVE_AMX_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

// 16 tokens, or fewer at the end, times the 16 rows of a panel.
struct AmxPackedProduct {
  const std::byte* panel;
  const Activations& x;
  int64_t m0;
  int tokens;
  float* y;  // of the first token and row
  int64_t ldy;
  __mmask16 mask;
  __m512 bias;

  int64_t groups() const { return x.columns / kPanelColumns; }

  // Starts the product of a group; kSlot tells apart the two that are under way.
  template <int kSlot, typename Tiles>
  void start(Tiles& tiles, int64_t group) const {
    tiles.template load<4 + kSlot>(x.high + m0 * x.stride + group * kPanelColumns, x.stride);
    tiles.template load<6 + kSlot>(panel + group * kPanelGroupBytes + 64, kAmxRowBytes);
    tiles.template zero<kSlot>();
    tiles.template dot_int8<kSlot, 4 + kSlot, 6 + kSlot>();
  }
  // Adds its sums, scaled. kTokens = 0: as many as there are.
  template <int kSlot, int kTokens, typename Tiles>
  POME_TARGET_AVX512 void finish(Tiles& tiles, int64_t group, __m512* total) const {
    alignas(64) int32_t sums[kAmxRows][16];
    tiles.template store<kSlot>(sums, sizeof sums[0]);
    const __m512 unit = _mm512_loadu_ps(panel + group * kPanelGroupBytes);
    const float* scale = x.scale + m0 * groups() + group;
    const int count = kTokens ? kTokens : tokens;
    POME_UNROLL
    for (int m = 0; m < count; ++m) {
      const __m512 factor = _mm512_mul_ps(unit, _mm512_set1_ps(scale[m * groups()]));
      total[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[m])), factor, total[m]);
    }
  }
  template <int kTokens, typename Tiles>
  POME_TARGET_AVX512 void run(Tiles& tiles) const {
    __m512 total[kAmxRows];
    const int count = kTokens ? kTokens : tokens;
    POME_UNROLL
    for (int m = 0; m < kAmxRows; ++m) total[m] = bias;
    start<0>(tiles, 0);
    for (int64_t g = 0; g < groups(); g += 2) {
      const bool second = g + 1 < groups();
      if (second) start<1>(tiles, g + 1);
      finish<0, kTokens>(tiles, g, total);
      if (g + 2 < groups()) start<0>(tiles, g + 2);
      if (second) finish<1, kTokens>(tiles, g + 1, total);
    }
    POME_UNROLL
    for (int m = 0; m < count; ++m) _mm512_mask_storeu_ps(y + m * ldy, mask, total[m]);
  }
};

template <typename Tiles>
POME_TARGET_AVX512 void packed_gemm_tiles(const ProductArgs& args) {
  const PackedLayout& layout = args.w.layout;
  Tiles tiles;
  int shaped = 0;  // tokens that the tiles are configured for
  for (int64_t tile = args.tile; tile < args.tile + args.tiles; ++tile) {
    fill_panel_avx512(args.w, tile, PanelBytes::kSigned, args.scratch);
    const int64_t row = tile * kTileRows, rows = std::min(kTileRows, layout.rows - row);
    const auto mask = static_cast<__mmask16>((1u << rows) - 1);
    __m512 bias = _mm512_setzero_ps();
    if (args.bias) bias = _mm512_maskz_loadu_ps(mask, args.bias + row);
    for (int64_t m = 0; m < args.x.m; m += kAmxRows) {
      const int tokens = static_cast<int>(std::min<int64_t>(kAmxRows, args.x.m - m));
      if (tokens != shaped) tiles.configure(amx_shapes({tokens, tokens}));
      shaped = tokens;
      const AmxPackedProduct product{args.scratch,      args.x,   m,    tokens,
                                     args.y_at(m, row), args.ldy, mask, bias};
      if (tokens == kAmxRows) {
        product.run<kAmxRows>(tiles);
      } else {
        product.run<0>(tiles);
      }
    }
  }
}

}  // namespace pome::kernels
#endif
