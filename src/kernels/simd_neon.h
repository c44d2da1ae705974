// NEON: eight floats as two registers, and vectors that end early.
#pragma once

#include "kernels/isa.h"

#if defined(POME_HAVE_NEON_KERNELS)
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pome::kernels {

struct F8 {
  float32x4_t low, high;
};

POME_INLINE_NEON F8 load8(const float* at) { return {vld1q_f32(at), vld1q_f32(at + 4)}; }
POME_INLINE_NEON void store8(float* to, F8 v) {
  vst1q_f32(to, v.low);
  vst1q_f32(to + 4, v.high);
}
POME_INLINE_NEON F8 zero8() { return {vdupq_n_f32(0), vdupq_n_f32(0)}; }
POME_INLINE_NEON F8 mul8(F8 a, float32x4_t by) {
  return {vmulq_f32(a.low, by), vmulq_f32(a.high, by)};
}
// sum + a * b, rounded once
POME_INLINE_NEON F8 add_product8(F8 sum, F8 a, F8 b) {
  return {vfmaq_f32(sum.low, a.low, b.low), vfmaq_f32(sum.high, a.high, b.high)};
}
POME_INLINE_NEON F8 floats8(int16x8_t v) {
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(v))), vcvtq_f32_s32(vmovl_high_s16(v))};
}
POME_INLINE_NEON F8 halves8(uint16x8_t bits) {
  const float16x8_t v = vreinterpretq_f16_u16(bits);
  return {vcvt_f32_f16(vget_low_f16(v)), vcvt_high_f32_f16(v)};
}
// The binary16 number at an address, in all lanes.
POME_INLINE_NEON float32x4_t half_everywhere(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits)));
}

// The first n < 4 or n < 8 lanes from memory, the others zero; and to memory.
POME_INLINE_NEON float32x4_t load_first4(const float* at, int64_t n) {
  float lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = at[i];
  return vld1q_f32(lanes);
}
POME_INLINE_NEON F8 load_first8(const float* at, int64_t n) {
  float lanes[8] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = at[i];
  return load8(lanes);
}
POME_INLINE_NEON void store_first4(float* to, float32x4_t v, int64_t n) {
  float lanes[4];
  vst1q_f32(lanes, v);
  for (int64_t i = 0; i < n; ++i) to[i] = lanes[i];
}

}  // namespace pome::kernels
#endif
