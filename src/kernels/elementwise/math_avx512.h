// AVX-512: functions of sixteen floats. Error bounds: kernels/elementwise/elementwise.h.
#pragma once

#include "kernels/isa.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

// As exp8 (math_avx2.h), for x <= 88.7; 0 below -87.3. NaN stays NaN.
POME_INLINE_AVX512 __m512 exp16(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 q = _mm512_set1_ps(0.0013814539415761828f);
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.00836874544620514f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.04166838899254799f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.1666652113199234f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.4999999403953552f));
  const __m512 p = _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r));
  const __mmask16 there = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(there, p, n);
}

// As tanh8 (math_avx2.h).
POME_INLINE_AVX512 __m512 tanh16(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f), size = _mm512_abs_ps(x);
  // Beyond 10 the result is 1 in f32.
  const __m512 capped = _mm512_min_ps(size, _mm512_set1_ps(10.0f));
  const __m512 e = exp16(_mm512_add_ps(capped, capped));
  const __m512 big = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one)));
  const __m512 z = _mm512_mul_ps(x, x);
  __m512 q = _mm512_set1_ps(-5.70498872745e-3f);
  q = _mm512_fmadd_ps(q, z, _mm512_set1_ps(2.06390887954e-2f));
  q = _mm512_fmadd_ps(q, z, _mm512_set1_ps(-5.37397155531e-2f));
  q = _mm512_fmadd_ps(q, z, _mm512_set1_ps(1.33314422036e-1f));
  q = _mm512_fmadd_ps(q, z, _mm512_set1_ps(-3.33332819422e-1f));
  const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(q, z), x, x);
  const __m512 signed_big = _mm512_or_ps(big, _mm512_and_ps(x, _mm512_set1_ps(-0.0f)));
  const __mmask16 is_small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0.625f), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(signed_big, is_small, small);
}

POME_INLINE_AVX512 __mmask16 mask_below(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1u << n) - 1);
}

}  // namespace pome::kernels
#endif
