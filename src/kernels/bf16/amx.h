// AMX bf16: 32 tokens times the 32 rows of a panel are summed in four tiles over all columns.
#pragma once

#include <algorithm>

#include "kernels/amx.h"
#include "kernels/bf16/panel_avx512.h"

#if defined(POME_HAVE_AMX_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

// Sums of tokens [m0, m0 + tokens), tokens <= 32, with the rows of the panel. `bias`: 32 values.
// kBoth: more than 16 tokens.
template <bool kBoth, typename Tiles>
void bf16_sum_tiles(Tiles& tiles, const Bf16Args& args, const float* bias, int64_t m0,
                    float (*sums)[kBf16Rows]) {
  const int64_t ldx = bf16_padded(args.w.columns);
  constexpr int64_t kPairBytes = 2 * kAmxRowBytes, kRowBytes = sizeof sums[0];
  // Every row begins as the biases.
  tiles.template load<0>(bias, 0);
  tiles.template load<1>(bias + 16, 0);
  if constexpr (kBoth) {
    tiles.template load<2>(bias, 0);
    tiles.template load<3>(bias + 16, 0);
  }
  for (int64_t k = 0; k < ldx; k += kBf16Pad) {
    const std::byte* panel = args.scratch + k / 2 * kPairBytes;
    const uint16_t* x = args.x + m0 * ldx + k;
    tiles.template load<4>(x, 2 * ldx);
    tiles.template load<6>(panel, kPairBytes);
    tiles.template load<7>(panel + kAmxRowBytes, kPairBytes);
    tiles.template dot_bf16<0, 4, 6>();
    tiles.template dot_bf16<1, 4, 7>();
    if constexpr (kBoth) {
      tiles.template load<5>(x + kAmxRows * ldx, 2 * ldx);
      tiles.template dot_bf16<2, 5, 6>();
      tiles.template dot_bf16<3, 5, 7>();
    }
  }
  tiles.template store<0>(sums[0], kRowBytes);
  tiles.template store<1>(sums[0] + 16, kRowBytes);
  if constexpr (kBoth) {
    tiles.template store<2>(sums[kAmxRows], kRowBytes);
    tiles.template store<3>(sums[kAmxRows] + 16, kRowBytes);
  }
}

template <typename Tiles>
void bf16_multiply_tiles(const Bf16Args& args) {
  constexpr int64_t kTokens = 2 * kAmxRows;
  Tiles tiles;
  int64_t shaped = 0;  // tokens that the tiles are configured for
  for (int64_t row = args.row; row < args.row + args.rows; row += kBf16Rows) {
    const int64_t rows = std::min(kBf16Rows, args.row + args.rows - row);
    bf16_fill_panel_avx512(args.w, row, rows, args.scratch);
    alignas(64) float bias[kBf16Rows] = {}, sums[kTokens][kBf16Rows];
    if (args.bias) std::copy_n(args.bias + row, rows, bias);
    for (int64_t m = 0; m < args.m; m += kTokens) {
      const int64_t tokens = std::min(kTokens, args.m - m);
      const bool both = tokens > kAmxRows;
      if (tokens != shaped) {
        const auto first = static_cast<int>(std::min<int64_t>(tokens, kAmxRows));
        tiles.configure(amx_shapes({first, static_cast<int>(tokens) - first}));
      }
      shaped = tokens;
      if (both) {
        bf16_sum_tiles<true>(tiles, args, bias, m, sums);
      } else {
        bf16_sum_tiles<false>(tiles, args, bias, m, sums);
      }
      for (int64_t i = 0; i < tokens; ++i)
        std::copy_n(sums[i], rows, args.y + (m + i) * args.ldy + row);
    }
  }
}

}  // namespace pome::kernels
#endif
