// Sixteen values of a cached row as floats, for every kind.
//
// A loader belongs to one row of `width` values; group() comes before the loads of its 64. Lanes
// that the mask leaves out hold any finite number, and no memory behind them is touched.
#pragma once

#include <cstring>

#include "kernels/attention/kv_rows.h"
#include "kernels/elementwise/math_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#if !defined(__clang__)
// GCC 12's intrinsics name an undefined vector where they mean "none".
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
namespace pome::kernels {

struct LoadF32 {
  POME_INLINE_AVX512 LoadF32(const std::byte* row, int64_t) : values(row) {}
  POME_INLINE_AVX512 void group(int64_t) {}
  POME_INLINE_AVX512 __m512 load(int64_t d, __mmask16 mask) const {
    return _mm512_maskz_loadu_ps(mask, values + 4 * d);
  }
  const std::byte* values;
};

struct LoadF16 {
  POME_INLINE_AVX512 LoadF16(const std::byte* row, int64_t) : values(row) {}
  POME_INLINE_AVX512 void group(int64_t) {}
  POME_INLINE_AVX512 __m512 load(int64_t d, __mmask16 mask) const {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, values + 2 * d));
  }
  const std::byte* values;
};

struct LoadGroups {
  POME_INLINE_AVX512 LoadGroups(const std::byte* row, int64_t width)
      : parameters(row), codes(row + 4 * kv_groups(width)) {}
  POME_INLINE_AVX512 void group(int64_t g) {
    int32_t word;
    std::memcpy(&word, parameters + 4 * g, 4);
    const __m512i both = _mm512_set1_epi32(word);
    scale = _mm512_castsi512_ps(
        _mm512_and_si512(both, _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000u))));
    offset = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  }
  const std::byte *parameters, *codes;
  __m512 scale, offset;
};

struct LoadQ8 : LoadGroups {
  POME_INLINE_AVX512 LoadQ8(const std::byte* row, int64_t width) : LoadGroups(row, width) {}
  POME_INLINE_AVX512 __m512 load(int64_t d, __mmask16 mask) const {
    const __m512i code = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, codes + d));
    return _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(code), offset);
  }
};

struct LoadQ4 : LoadGroups {
  POME_INLINE_AVX512 LoadQ4(const std::byte* row, int64_t width) : LoadGroups(row, width) {}
  POME_INLINE_AVX512 __m512 load(int64_t d, __mmask16 mask) const {
    // Codes are padded to sixteen, so a group that has any has eight bytes.
    const auto there = static_cast<__mmask16>(mask ? 0xFF : 0);
    const __m128i pairs = _mm_cvtepu8_epi16(_mm_maskz_loadu_epi8(there, codes + d / 2));
    const __m128i bytes = _mm_or_si128(pairs, _mm_slli_epi16(pairs, 4));
    const __m512i code = _mm512_cvtepu8_epi32(bytes);  // permutexvar looks at the low four bits
    return _mm512_fmadd_ps(scale, _mm512_permutexvar_ps(code, _mm512_loadu_ps(kNf4)), offset);
  }
};

// Calls run.template operator()<Loader>().
template <typename Run>
void with_loader(KvKind kind, const Run& run) {
  switch (kind) {
    case KvKind::kF32:
      return run.template operator()<LoadF32>();
    case KvKind::kF16:
      return run.template operator()<LoadF16>();
    case KvKind::kQ8:
      return run.template operator()<LoadQ8>();
    case KvKind::kQ4:
      return run.template operator()<LoadQ4>();
  }
}

}  // namespace pome::kernels
#endif
