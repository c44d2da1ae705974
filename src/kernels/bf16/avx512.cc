// AVX-512 BF16. A panel holds 32 rows, pair of columns after pair:  [pair][tile 0: 16 rows][tile
// 1], two bf16 in each lane. 12 tokens times 32 rows are summed in 24 registers; a pair of x is
// broadcast to all rows.
#include <algorithm>

#include "kernels/bf16/bf16.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

namespace {

constexpr int kTokens = 12;

// 32 columns of a row as bf16, two to a lane; those from `count` on are zero.
template <EncodingKind kKind>
POME_INLINE_BF16 __m512i columns_of(const std::byte* at, int64_t count) {
  const auto mask = static_cast<__mmask32>(count >= 32 ? ~0u : (1u << count) - 1);
  if constexpr (kKind == EncodingKind::kBF16) return _mm512_maskz_loadu_epi16(mask, at);
  __m512 low, high;
  if constexpr (kKind == EncodingKind::kF16) {
    const __m512i halves = _mm512_maskz_loadu_epi16(mask, at);
    low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
  } else {
    low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), at);
    high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), at + 64);
  }
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Lane j of row i becomes lane i of row j.
POME_INLINE_BF16 void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  POME_UNROLL
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
  POME_UNROLL
  for (int i = 0; i < 4; ++i) {
    v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  POME_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xDD);
  }
  POME_UNROLL
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    v[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
  }
}

template <EncodingKind kKind>
POME_TARGET_BF16 void fill_panel(const WeightView& w, int64_t row, int64_t rows, std::byte* panel) {
  constexpr int64_t kBytes = kKind == EncodingKind::kF32 ? 4 : 2;
  for (int64_t tile = 0; tile < 2; ++tile) {
    for (int64_t k = 0; k < w.columns; k += 32) {
      __m512i v[16];
      for (int64_t r = 0; r < 16; ++r) {
        const int64_t from = 16 * tile + r;
        v[r] = from < rows ? columns_of<kKind>(w.parts[0] + (row + from) * w.row_bytes + k * kBytes,
                                               w.columns - k)
                           : _mm512_setzero_si512();
      }
      transpose(v);
      for (int64_t pair = 0; pair < 16; ++pair)
        _mm512_store_si512(panel + (k / 2 + pair) * 128 + tile * 64, v[pair]);
    }
  }
}

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

POME_TARGET_BF16 void bf16_round_avx512(const float* x, int64_t columns, uint16_t* to) {
  for (int64_t k = 0; k < columns; k += 32) {
    const auto* at = reinterpret_cast<const std::byte*>(x + k);
    _mm512_storeu_si512(to + k, columns_of<EncodingKind::kF32>(at, columns - k));
  }
}

POME_TARGET_BF16 void bf16_multiply_avx512(const Bf16Args& args) {
  for (int64_t row = args.row; row < args.row + args.rows; row += kBf16Rows) {
    const int64_t rows = std::min(kBf16Rows, args.row + args.rows - row);
    switch (args.w.encoding.kind) {
      case EncodingKind::kF16:
        fill_panel<EncodingKind::kF16>(args.w, row, rows, args.scratch);
        break;
      case EncodingKind::kBF16:
        fill_panel<EncodingKind::kBF16>(args.w, row, rows, args.scratch);
        break;
      default:
        fill_panel<EncodingKind::kF32>(args.w, row, rows, args.scratch);
    }
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
