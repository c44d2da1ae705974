// AVX-512 BF16. 12 tokens times the 32 rows of a panel are summed in 24 registers; a pair of x is
// broadcast to all rows.
#include <algorithm>

#include "kernels/bf16/panel_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

namespace {

constexpr int kTokens = 12;

// M tokens from m0 on times both tiles.
template <int M>
POME_TARGET_BF16 void multiply_panel(const Bf16Args& args, const std::byte* panel, int64_t row,
                                     const __mmask16 (&mask)[2], int64_t m0) {
  const int64_t ldx = bf16_padded(args.w.columns), pairs = ldx / 2;
  __m512 sum[M][2];
  POME_UNROLL
  for (int n = 0; n < 2; ++n) {
    __m512 bias = _mm512_setzero_ps();
    if (args.bias) bias = _mm512_maskz_loadu_ps(mask[n], args.bias + row + 16 * n);
    POME_UNROLL
    for (int m = 0; m < M; ++m) sum[m][n] = bias;
  }
  // Three tokens are addressed from one pointer.
  constexpr int kPointers = (M + 2) / 3;
  const uint16_t* from[kPointers];
  POME_UNROLL
  for (int i = 0; i < kPointers; ++i) from[i] = args.x + (m0 + 3 * i) * ldx;
  for (int64_t p = 0; p < pairs; ++p) {
    const __m512i w0 = _mm512_load_si512(panel + 128 * p);
    const __m512i w1 = _mm512_load_si512(panel + 128 * p + 64);
    POME_UNROLL
    for (int m = 0; m < M; ++m) {
      int32_t two;
      __builtin_memcpy(&two, from[m / 3] + m % 3 * ldx + 2 * p, 4);
      const auto x = (__m512bh)_mm512_set1_epi32(two);
      sum[m][0] = _mm512_dpbf16_ps(sum[m][0], (__m512bh)w0, x);
      sum[m][1] = _mm512_dpbf16_ps(sum[m][1], (__m512bh)w1, x);
    }
  }
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    POME_UNROLL
    for (int n = 0; n < 2; ++n)
      _mm512_mask_storeu_ps(args.y + (m0 + m) * args.ldy + row + 16 * n, mask[n], sum[m][n]);
  }
}

}  // namespace

POME_TARGET_BF16 void bf16_multiply_avx512(const Bf16Args& args) {
  for (int64_t row = args.row; row < args.row + args.rows; row += kBf16Rows) {
    const int64_t rows = std::min(kBf16Rows, args.row + args.rows - row);
    bf16_fill_panel_avx512(args.w, row, rows, args.scratch);
    const __mmask16 mask[2] = {static_cast<__mmask16>((1u << std::min<int64_t>(rows, 16)) - 1),
                               static_cast<__mmask16>((1u << std::max<int64_t>(rows - 16, 0)) - 1)};
    int64_t m = 0;
    for (; m + kTokens <= args.m; m += kTokens)
      multiply_panel<kTokens>(args, args.scratch, row, mask, m);
    for (; m + 4 <= args.m; m += 4) multiply_panel<4>(args, args.scratch, row, mask, m);
    for (; m < args.m; ++m) multiply_panel<1>(args, args.scratch, row, mask, m);
  }
}

}  // namespace pome::kernels
#endif
