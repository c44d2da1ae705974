// NEON: functions of four floats. Error bounds: kernels/elementwise/elementwise.h; the polynomials
// are those of math_avx2.h, which says where they come from.
#pragma once

#include "kernels/simd_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

// 2^n for -126 <= n <= 127
POME_INLINE_NEON float32x4_t power_of_two4(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

POME_INLINE_NEON float32x4_t exp4(float32x4_t x) {
  const float32x4_t smallest = vdupq_n_f32(-87.3f), largest = vdupq_n_f32(88.7228394f);
  // NaN passes minimum and maximum.
  const float32x4_t inside = vminq_f32(largest, vmaxq_f32(smallest, x));
  const float32x4_t n = vrndnq_f32(vmulq_f32(inside, vdupq_n_f32(1.44269504f)));
  float32x4_t r = vfmsq_f32(inside, n, vdupq_n_f32(0.693145752f));
  r = vfmsq_f32(r, n, vdupq_n_f32(1.42860677e-6f));
  float32x4_t q = vdupq_n_f32(0.0013814539415761828f);
  q = vfmaq_f32(vdupq_n_f32(0.00836874544620514f), q, r);
  q = vfmaq_f32(vdupq_n_f32(0.04166838899254799f), q, r);
  q = vfmaq_f32(vdupq_n_f32(0.1666652113199234f), q, r);
  q = vfmaq_f32(vdupq_n_f32(0.4999999403953552f), q, r);
  const float32x4_t p = vaddq_f32(vdupq_n_f32(1), vfmaq_f32(r, vmulq_f32(r, r), q));
  // In two factors: 2^128 is no float, but e^x is one up to x = 88.72.
  const int32x4_t exponent = vcvtq_s32_f32(n);
  const int32x4_t first = vshrq_n_s32(exponent, 1), second = vsubq_s32(exponent, first);
  const float32x4_t y = vmulq_f32(vmulq_f32(p, power_of_two4(first)), power_of_two4(second));
  const float32x4_t infinity = vreinterpretq_f32_u32(vdupq_n_u32(0x7F800000));
  const float32x4_t capped = vbslq_f32(vcgtq_f32(x, largest), infinity, y);
  return vbslq_f32(vcltq_f32(x, smallest), vdupq_n_f32(0), capped);
}

// x / (1 + e^-u)
POME_INLINE_NEON float32x4_t times_sigmoid4(float32x4_t x, float32x4_t u) {
  return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1), exp4(vnegq_f32(u))));
}

POME_INLINE_NEON float32x4_t gelu_tanh4(float32x4_t x) {
  const float32x4_t x2 = vmulq_f32(x, x);
  const float32x4_t inner = vfmaq_f32(x, vmulq_f32(vdupq_n_f32(0.044715f), x2), x);
  return times_sigmoid4(x, vmulq_f32(vdupq_n_f32(1.5957691f), inner));
}

POME_INLINE_NEON float32x4_t tanh4(float32x4_t x) {
  const float32x4_t one = vdupq_n_f32(1), size = vabsq_f32(x);
  const float32x4_t e = exp4(vaddq_f32(size, size));
  const float32x4_t big = vsubq_f32(one, vdivq_f32(vdupq_n_f32(2), vaddq_f32(e, one)));
  const float32x4_t z = vmulq_f32(x, x);
  float32x4_t q = vdupq_n_f32(-5.70498872745e-3f);
  q = vfmaq_f32(vdupq_n_f32(2.06390887954e-2f), q, z);
  q = vfmaq_f32(vdupq_n_f32(-5.37397155531e-2f), q, z);
  q = vfmaq_f32(vdupq_n_f32(1.33314422036e-1f), q, z);
  q = vfmaq_f32(vdupq_n_f32(-3.33332819422e-1f), q, z);
  const float32x4_t small = vfmaq_f32(x, vmulq_f32(q, z), x);
  const float32x4_t signed_big = vbslq_f32(vdupq_n_u32(0x80000000u), x, big);
  return vbslq_f32(vcltq_f32(size, vdupq_n_f32(0.625f)), small, signed_big);
}

// Sum and maximum of the lanes, always in the same order.
POME_INLINE_NEON float sum_of_lanes(float32x4_t v) { return vaddvq_f32(v); }
POME_INLINE_NEON float max_of_lanes(float32x4_t v) { return vmaxvq_f32(v); }

}  // namespace pome::kernels
#endif
