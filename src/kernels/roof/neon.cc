// NEON: int8 products as pairs in 16 bits, with the dot product, and as 2 x 8 by 8 x 2 matrices.
#include "kernels/roof/roof.h"

#if defined(__aarch64__)
#include <arm_neon.h>

namespace pome::kernels {

namespace {

constexpr int kSums = 24;

uint32_t total_of(const int32x4_t* sum, int count) {
  uint32_t total = 0;
  for (int j = 0; j < count; ++j) total += static_cast<uint32_t>(vaddvq_s32(sum[j]));
  return total;
}

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
  constexpr int kPairs = 8;
  int8x16_t x = vdupq_n_s8(1), y = x;
  int32x4_t sum[kPairs];
  for (int32x4_t& each : sum) each = vdupq_n_s32(0);
  for (int64_t i = 0; i < rounds; ++i) {
    POME_UNROLL
    for (int j = 0; j < kPairs; ++j) {
      // Nothing may be computed once for all products.
      __asm__ volatile("" : "+w"(x), "+w"(y));
      const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(y));
      sum[j] = vpadalq_s16(sum[j], vmlal_high_s8(low, x, y));
    }
  }
  return total_of(sum, kPairs);
}

double f32_roof_neon(int64_t rounds) {
  float32x4_t x = vdupq_n_f32(1.0f), y = x;
  float32x4_t sum[kSums];
  for (float32x4_t& each : sum) each = vdupq_n_f32(0.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+w"(x), "+w"(y));
    POME_UNROLL
    for (int j = 0; j < 16; ++j) sum[j] = vfmaq_f32(sum[j], x, y);
    POME_UNROLL
    for (int j = 16; j < kSums; ++j) sum[j] = vfmaq_f32(sum[j], x, y);
  }
  double total = 0;
  for (const float32x4_t& each : sum) total += static_cast<double>(vaddvq_f32(each));
  return total;
}

__attribute__((target("arch=armv8.2-a+dotprod"))) double int8_roof_dotprod(int64_t rounds) {
  int8x16_t x = vdupq_n_s8(1), y = x;
  int32x4_t sum[kSums];
  for (int32x4_t& each : sum) each = vdupq_n_s32(0);
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+w"(x), "+w"(y));
    POME_UNROLL
    for (int j = 0; j < 16; ++j) sum[j] = vdotq_s32(sum[j], x, y);
    POME_UNROLL
    for (int j = 16; j < kSums; ++j) sum[j] = vdotq_s32(sum[j], x, y);
  }
  return total_of(sum, kSums);
}

__attribute__((target("arch=armv8.2-a+i8mm"))) double int8_roof_i8mm(int64_t rounds) {
  int8x16_t x = vdupq_n_s8(1), y = x;
  int32x4_t sum[kSums];
  for (int32x4_t& each : sum) each = vdupq_n_s32(0);
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+w"(x), "+w"(y));
    POME_UNROLL
    for (int j = 0; j < 16; ++j) sum[j] = vmmlaq_s32(sum[j], x, y);
    POME_UNROLL
    for (int j = 16; j < kSums; ++j) sum[j] = vmmlaq_s32(sum[j], x, y);
  }
  return total_of(sum, kSums);
}

}  // namespace pome::kernels
#endif
