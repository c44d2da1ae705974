// NEON: int8 products as pairs in 16 bits, with the dot product, and as 2 x 8 by 8 x 2 matrices.
#include "kernels/roof/products.h"
#include "kernels/roof/roof.h"

#if defined(POME_HAVE_NEON_KERNELS)
#include <arm_neon.h>

namespace pome::kernels {

namespace {

constexpr int kSums = 24;

}  // namespace

uint64_t read_roof_neon(const std::byte* data, int64_t bytes) {
  constexpr int64_t kAhead = 1024;
  uint64x2_t sum[4];
  for (uint64x2_t& each : sum) each = vdupq_n_u64(0);
  for (int64_t i = 0; i < bytes; i += 128) {
    __builtin_prefetch(data + i + kAhead);
    __builtin_prefetch(data + i + kAhead + 64);
    POME_UNROLL
    for (int j = 0; j < 8; ++j)
      sum[j % 4] =
          vaddq_u64(sum[j % 4], vld1q_u64(reinterpret_cast<const uint64_t*>(data + i) + 2 * j));
  }
  return vaddvq_u64(vaddq_u64(vaddq_u64(sum[0], sum[1]), vaddq_u64(sum[2], sum[3])));
}

double int8_roof_neon(int64_t rounds) {
  int8x16_t x = vdupq_n_s8(1), y = x;
  int32x4_t sum[8];
  POME_ROOF_PRODUCTS(
      "+w", vdupq_n_s32(0),
      vpadalq_s16(sum[j], vmlal_high_s8(vmull_s8(vget_low_s8(x), vget_low_s8(y)), x, y)),
      vaddq_s32(sum[0], sum[j]));
  return static_cast<uint32_t>(vaddvq_s32(sum[0]));
}

double f32_roof_neon(int64_t rounds) {
  float32x4_t x = vdupq_n_f32(1.0f), y = x, sum[kSums];
  POME_ROOF_PRODUCTS("+w", vdupq_n_f32(0.0f), vfmaq_f32(sum[j], x, y), vaddq_f32(sum[0], sum[j]));
  return static_cast<double>(vaddvq_f32(sum[0]));
}

POME_TARGET_DOTPROD double int8_roof_dotprod(int64_t rounds) {
  int8x16_t x = vdupq_n_s8(1), y = x;
  int32x4_t sum[kSums];
  POME_ROOF_PRODUCTS("+w", vdupq_n_s32(0), vdotq_s32(sum[j], x, y), vaddq_s32(sum[0], sum[j]));
  return static_cast<uint32_t>(vaddvq_s32(sum[0]));
}

POME_TARGET_I8MM double int8_roof_i8mm(int64_t rounds) {
  int8x16_t x = vdupq_n_s8(1), y = x;
  int32x4_t sum[kSums];
  POME_ROOF_PRODUCTS("+w", vdupq_n_s32(0), vmmlaq_s32(sum[j], x, y), vaddq_s32(sum[0], sum[j]));
  return static_cast<uint32_t>(vaddvq_s32(sum[0]));
}

}  // namespace pome::kernels
#endif
