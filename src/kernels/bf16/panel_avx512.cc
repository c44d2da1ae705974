// AVX-512 BF16: rounds, and fills panels.
#include "kernels/bf16/panel_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

namespace {

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

}  // namespace

void bf16_fill_panel_avx512(const WeightView& w, int64_t row, int64_t rows, std::byte* panel) {
  switch (w.encoding.kind) {
    case EncodingKind::kF16:
      return fill_panel<EncodingKind::kF16>(w, row, rows, panel);
    case EncodingKind::kBF16:
      return fill_panel<EncodingKind::kBF16>(w, row, rows, panel);
    default:
      return fill_panel<EncodingKind::kF32>(w, row, rows, panel);
  }
}

POME_TARGET_BF16 void bf16_round_avx512(const float* x, int64_t columns, uint16_t* to) {
  for (int64_t k = 0; k < columns; k += 32) {
    const auto* at = reinterpret_cast<const std::byte*>(x + k);
    _mm512_storeu_si512(to + k, columns_of<EncodingKind::kF32>(at, columns - k));
  }
}

}  // namespace pome::kernels
#endif
