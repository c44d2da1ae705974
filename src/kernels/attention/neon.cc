#include <cmath>
#include <cstring>

#include "kernels/attention/attention.h"
#include "kernels/attention/unpack_rows.h"
#include "kernels/elementwise/math_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

// R rows, C vectors of four columns.
template <int R, int C>
POME_INLINE_NEON void weighted_tile(const WeightedSumArgs& args, int64_t r0, int64_t d0) {
  const float* p = args.p + r0 * args.ldp;
  const float* v = args.v + d0;
  float32x4_t sum[R][C];
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    POME_UNROLL
    for (int c = 0; c < C; ++c) sum[r][c] = vdupq_n_f32(0);
  }
  for (int64_t j = 0; j < args.n; ++j) {
    float32x4_t vs[C];
    POME_UNROLL
    for (int c = 0; c < C; ++c) vs[c] = vld1q_f32(v + j * args.ldv + c * 4);
    POME_UNROLL
    for (int r = 0; r < R; ++r) {
      POME_UNROLL
      for (int c = 0; c < C; ++c) sum[r][c] = vfmaq_n_f32(sum[r][c], vs[c], p[r * args.ldp + j]);
    }
  }
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    POME_UNROLL
    for (int c = 0; c < C; ++c) vst1q_f32(args.y + (r0 + r) * args.ldy + d0 + c * 4, sum[r][c]);
  }
}

// C: as many vectors as keep R * C sums and C values in registers.
template <int R, int C>
void weighted_rows(const WeightedSumArgs& args, int64_t r0) {
  int64_t d = 0;
  for (; d + 4 * C <= args.d; d += 4 * C) weighted_tile<R, C>(args, r0, d);
  for (; d + 4 <= args.d; d += 4) weighted_tile<R, 1>(args, r0, d);
  for (; d < args.d; ++d) {
    for (int64_t r = r0; r < r0 + R; ++r) {
      float sum = 0;
      for (int64_t j = 0; j < args.n; ++j)
        sum = std::fma(args.v[j * args.ldv + d], args.p[r * args.ldp + j], sum);
      args.y[r * args.ldy + d] = sum;
    }
  }
}

// The sixteen levels of kQ4 as bytes of floats: byte b of level i is table[b] lane i.
struct LevelTable {
  uint8x16x4_t bytes;
  LevelTable() : bytes(vld4q_u8(reinterpret_cast<const uint8_t*>(kNf4))) {}
  POME_INLINE_NEON F8 levels(uint8x8_t codes) const {
    const uint8x16_t both = vcombine_u8(codes, codes);
    uint8x8x4_t parts;
    parts.val[0] = vget_low_u8(vqtbl1q_u8(bytes.val[0], both));
    parts.val[1] = vget_low_u8(vqtbl1q_u8(bytes.val[1], both));
    parts.val[2] = vget_low_u8(vqtbl1q_u8(bytes.val[2], both));
    parts.val[3] = vget_low_u8(vqtbl1q_u8(bytes.val[3], both));
    uint8_t stored[32];
    vst4_u8(stored, parts);
    return {vreinterpretq_f32_u8(vld1q_u8(stored)), vreinterpretq_f32_u8(vld1q_u8(stored + 16))};
  }
};

// Codes are there for whole sixteens; what is beyond `dim` is not written.
template <bool kBytes>
void unpack_codes(const KvRows& rows, const std::byte* row, float* x) {
  const auto* codes = reinterpret_cast<const uint8_t*>(row) + 4 * kv_groups(rows.width);
  const LevelTable table;
  for (int64_t d = 0; d < rows.dim; d += 8) {
    uint32_t word;
    std::memcpy(&word, row + d / kKvGroup * 4, 4);
    const float32x4_t scale = vreinterpretq_f32_u32(vdupq_n_u32(word & 0xFFFF0000u));
    const float32x4_t offset = vreinterpretq_f32_u32(vdupq_n_u32(word << 16));
    F8 level;
    if constexpr (kBytes) {
      level = floats8(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(codes + d))));
    } else {
      uint32_t four;
      std::memcpy(&four, codes + d / 2, 4);
      const uint8x8_t pairs = vreinterpret_u8_u32(vdup_n_u32(four));
      level = table.levels(vzip1_u8(vand_u8(pairs, vdup_n_u8(15)), vshr_n_u8(pairs, 4)));
    }
    const F8 value = {vfmaq_f32(offset, level.low, scale), vfmaq_f32(offset, level.high, scale)};
    if (d + 8 <= rows.dim) {
      store8(x + d, value);
      continue;
    }
    float last[8];
    store8(last, value);
    std::memcpy(x + d, last, static_cast<size_t>(rows.dim - d) * sizeof(float));
  }
}

void unpack_halves(const KvRows& rows, const std::byte* row, float* x) {
  const auto* halves = reinterpret_cast<const uint16_t*>(row);
  int64_t d = 0;
  for (; d + 8 <= rows.dim; d += 8) store8(x + d, halves8(vld1q_u16(halves + d)));
  if (d == rows.dim) return;
  uint16_t last[8] = {};
  float floats[8];
  const auto left = static_cast<size_t>(rows.dim - d);
  std::memcpy(last, halves + d, left * sizeof(uint16_t));
  store8(floats, halves8(vld1q_u16(last)));
  std::memcpy(x + d, floats, left * sizeof(float));
}

}  // namespace

void unpack_neon(const KvRows& rows, int64_t n, float* x, int64_t ldx) {
  unpack_rows(rows, n, x, ldx, unpack_halves, unpack_codes<true>, unpack_codes<false>);
}

void weighted_sum_neon(const WeightedSumArgs& args) {
  int64_t r = 0;
  for (; r + 4 <= args.rows; r += 4) weighted_rows<4, 4>(args, r);
  if (args.rows - r >= 2) {
    weighted_rows<2, 8>(args, r);
    r += 2;
  }
  if (args.rows > r) weighted_rows<1, 8>(args, r);
}

// Lanes beyond n count as scores of minus infinity, whose p is zero.
float softmax_neon(const SoftmaxArgs& args) {
  const float32x4_t scale = vdupq_n_f32(args.scale), cap = vdupq_n_f32(args.softcap);
  const auto prepare = [&](float32x4_t s) {
    s = vmulq_f32(s, scale);
    return args.softcap > 0 ? vmulq_f32(cap, tanh4(vdivq_f32(s, cap))) : s;
  };
  const int64_t whole = args.n / 4 * 4, rest = args.n - whole;
  float32x4_t most = vdupq_n_f32(-INFINITY);
  for (int64_t j = 0; j < whole; j += 4) {
    const float32x4_t s = prepare(vld1q_f32(args.s + j));
    vst1q_f32(args.s + j, s);
    most = vmaxq_f32(most, s);
  }
  float last[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  if (rest > 0) {
    float prepared[4];
    vst1q_f32(prepared, prepare(load_first4(args.s + whole, rest)));
    std::memcpy(last, prepared, static_cast<size_t>(rest) * sizeof(float));
    most = vmaxq_f32(most, vld1q_f32(last));
  }
  const float largest = max_of_lanes(most);
  const float32x4_t offset = vdupq_n_f32(largest);
  float32x4_t sum = vdupq_n_f32(0);
  for (int64_t j = 0; j < whole; j += 4) {
    const float32x4_t p = exp4(vsubq_f32(vld1q_f32(args.s + j), offset));
    vst1q_f32(args.s + j, p);
    sum = vaddq_f32(sum, p);
  }
  if (rest > 0) {
    const float32x4_t p = exp4(vsubq_f32(vld1q_f32(last), offset));
    store_first4(args.s + whole, p, rest);
    sum = vaddq_f32(sum, p);
  }
  *args.largest = largest;
  return sum_of_lanes(sum);
}

}  // namespace pome::kernels
#endif
