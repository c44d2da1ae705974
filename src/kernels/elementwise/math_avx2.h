// AVX2: functions of eight floats. Error bounds: kernels/elementwise/elementwise.h.
#pragma once

#include "kernels/isa.h"

#if defined(POME_HAVE_AVX2_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2. The polynomial 1 + r + r^2 q(r) was
// fitted for the smallest largest relative error, 3.1e-9 before rounding. ln 2 is split in two so
// that r is exact to the last bit of f32.
POME_INLINE_AVX2 __m256 exp8(__m256 x) {
  const __m256 smallest = _mm256_set1_ps(-87.3f), largest = _mm256_set1_ps(88.7228394f);
  // min and max give their second operand for NaN.
  const __m256 inside = _mm256_min_ps(largest, _mm256_max_ps(smallest, x));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(inside, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), inside);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
  __m256 q = _mm256_set1_ps(0.0013814539415761828f);
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0.00836874544620514f));
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0.04166838899254799f));
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0.1666652113199234f));
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0.4999999403953552f));
  const __m256 p = _mm256_add_ps(_mm256_set1_ps(1.0f), _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r));
  // In two factors: 2^128 is no float, but e^x is one up to x = 88.72.
  const __m256i exponent = _mm256_cvtps_epi32(n);
  const __m256i first = _mm256_srai_epi32(exponent, 1);
  const __m256i second = _mm256_sub_epi32(exponent, first);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 y = _mm256_mul_ps(
      _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23))),
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23)));
  const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7F800000));
  const __m256 capped = _mm256_blendv_ps(y, infinity, _mm256_cmp_ps(x, largest, _CMP_GT_OQ));
  return _mm256_andnot_ps(_mm256_cmp_ps(x, smallest, _CMP_LT_OQ), capped);
}

// x / (1 + e^-x)
POME_INLINE_AVX2 __m256 times_sigmoid8(__m256 x, __m256 u) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(x, _mm256_add_ps(one, exp8(_mm256_sub_ps(_mm256_setzero_ps(), u))));
}

POME_INLINE_AVX2 __m256 gelu_tanh8(__m256 x) {
  const __m256 x2 = _mm256_mul_ps(x, x);
  const __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_set1_ps(0.044715f), x2), x, x);
  return times_sigmoid8(x, _mm256_mul_ps(_mm256_set1_ps(1.5957691f), inner));
}

// tanh |x| = 1 - 2 / (e^2|x| + 1) where that does not cancel; below 0.625 an odd polynomial
// (coefficients: Cephes tanhf).
POME_INLINE_AVX2 __m256 tanh8(__m256 x) {
  const __m256 sign_bit = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
  const __m256 size = _mm256_andnot_ps(sign_bit, x);
  const __m256 e = exp8(_mm256_add_ps(size, size));
  const __m256 big = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
  const __m256 z = _mm256_mul_ps(x, x);
  __m256 q = _mm256_set1_ps(-5.70498872745e-3f);
  q = _mm256_fmadd_ps(q, z, _mm256_set1_ps(2.06390887954e-2f));
  q = _mm256_fmadd_ps(q, z, _mm256_set1_ps(-5.37397155531e-2f));
  q = _mm256_fmadd_ps(q, z, _mm256_set1_ps(1.33314422036e-1f));
  q = _mm256_fmadd_ps(q, z, _mm256_set1_ps(-3.33332819422e-1f));
  const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(q, z), x, x);
  const __m256 is_small = _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
  return _mm256_blendv_ps(_mm256_or_ps(big, _mm256_and_ps(sign_bit, x)), small, is_small);
}

POME_INLINE_AVX2 __m256i lanes_below(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Sum and maximum of the lanes, always in the same order.
POME_INLINE_AVX2 float sum_of_lanes(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
POME_INLINE_AVX2 float max_of_lanes(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace pome::kernels
#endif
