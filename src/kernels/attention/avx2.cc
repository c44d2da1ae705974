#include <cmath>
#include <cstring>

#include "kernels/attention/attention.h"
#include "kernels/attention/unpack_rows.h"
#include "kernels/elementwise/math_avx2.h"

#if defined(POME_HAVE_AVX2_KERNELS)
namespace pome::kernels {

namespace {

// R rows, C vectors of eight columns; columns beyond `mask` of the last vector are not touched.
template <int R, int C>
POME_INLINE_AVX2 void weighted_tile(const WeightedSumArgs& args, int64_t r0, int64_t d0,
                                    bool masked, __m256i mask) {
  const float* p = args.p + r0 * args.ldp;
  const float* v = args.v + d0;
  __m256 sum[R][C];
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    POME_UNROLL
    for (int c = 0; c < C; ++c) sum[r][c] = _mm256_setzero_ps();
  }
  for (int64_t j = 0; j < args.n; ++j) {
    __m256 vs[C];
    POME_UNROLL
    for (int c = 0; c < C; ++c) {
      vs[c] = masked ? _mm256_maskload_ps(v + j * args.ldv + c * 8, mask)
                     : _mm256_loadu_ps(v + j * args.ldv + c * 8);
    }
    POME_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m256 ps = _mm256_broadcast_ss(p + r * args.ldp + j);
      POME_UNROLL
      for (int c = 0; c < C; ++c) sum[r][c] = _mm256_fmadd_ps(ps, vs[c], sum[r][c]);
    }
  }
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    float* y = args.y + (r0 + r) * args.ldy + d0;
    POME_UNROLL
    for (int c = 0; c < C; ++c) {
      if (masked) {
        _mm256_maskstore_ps(y + c * 8, mask, sum[r][c]);
      } else {
        _mm256_storeu_ps(y + c * 8, sum[r][c]);
      }
    }
  }
}

// C: as many vectors as keep R * C sums in registers.
template <int R, int C>
POME_TARGET_AVX2 void weighted_rows(const WeightedSumArgs& args, int64_t r0) {
  const __m256i all = _mm256_set1_epi32(-1);
  int64_t d = 0;
  for (; d + 8 * C <= args.d; d += 8 * C) weighted_tile<R, C>(args, r0, d, false, all);
  for (; d + 8 <= args.d; d += 8) weighted_tile<R, 1>(args, r0, d, false, all);
  if (d < args.d) weighted_tile<R, 1>(args, r0, d, true, lanes_below(args.d - d));
}

struct GroupOf {
  __m256 scale, offset;
};
POME_INLINE_AVX2 GroupOf group_of(const std::byte* row, int64_t group) {
  int32_t word;
  std::memcpy(&word, row + 4 * group, 4);
  const __m256i both = _mm256_set1_epi32(word);
  return {_mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(int(0xFFFF0000u)))),
          _mm256_castsi256_ps(_mm256_slli_epi32(both, 16))};
}

// Codes are there for whole sixteens; what is beyond `dim` is not written.
template <bool kBytes>
POME_TARGET_AVX2 void unpack_codes(const KvRows& rows, const std::byte* row, float* x) {
  const std::byte* codes = row + 4 * kv_groups(rows.width);
  const __m256 low = _mm256_loadu_ps(kNf4), high = _mm256_loadu_ps(kNf4 + 8);
  for (int64_t d = 0; d < rows.dim; d += 8) {
    const GroupOf group = group_of(row, d / kKvGroup);
    __m256 level;
    if constexpr (kBytes) {
      level = _mm256_cvtepi32_ps(
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + d))));
    } else {
      int32_t word;
      std::memcpy(&word, codes + d / 2, 4);
      // Lane i takes half byte i.
      const __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(word),
                                             _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
      const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
      level = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code),
                               _mm256_permutevar8x32_ps(high, code), upper);
    }
    const __m256 value = _mm256_fmadd_ps(group.scale, level, group.offset);
    if (d + 8 <= rows.dim)
      _mm256_storeu_ps(x + d, value);
    else
      _mm256_maskstore_ps(x + d, lanes_below(rows.dim - d), value);
  }
}

POME_TARGET_AVX2 void unpack_halves(const KvRows& rows, const std::byte* row, float* x) {
  const auto* halves = reinterpret_cast<const uint16_t*>(row);
  int64_t d = 0;
  for (; d + 8 <= rows.dim; d += 8)
    _mm256_storeu_ps(
        x + d, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + d))));
  for (; d < rows.dim; ++d) x[d] = _cvtsh_ss(halves[d]);
}

}  // namespace

void unpack_avx2(const KvRows& rows, int64_t n, float* x, int64_t ldx) {
  unpack_rows(rows, n, x, ldx, unpack_halves, unpack_codes<true>, unpack_codes<false>);
}

void weighted_sum_avx2(const WeightedSumArgs& args) {
  int64_t r = 0;
  for (; r + 6 <= args.rows; r += 6) weighted_rows<6, 2>(args, r);
  for (; r + 3 <= args.rows; r += 3) weighted_rows<3, 4>(args, r);
  if (args.rows - r == 2) weighted_rows<2, 4>(args, r);
  if (args.rows - r == 1) weighted_rows<1, 8>(args, r);
}

POME_TARGET_AVX2 float softmax_avx2(const SoftmaxArgs& args) {
  const __m256 lowest = _mm256_set1_ps(-INFINITY);
  const __m256 scale = _mm256_set1_ps(args.scale), cap = _mm256_set1_ps(args.softcap);
  __m256 most = lowest;
  for (int64_t j = 0; j < args.n; j += 8) {
    const __m256i mask = lanes_below(args.n - j);
    __m256 s = _mm256_mul_ps(_mm256_maskload_ps(args.s + j, mask), scale);
    if (args.softcap > 0) s = _mm256_mul_ps(cap, tanh8(_mm256_div_ps(s, cap)));
    _mm256_maskstore_ps(args.s + j, mask, s);
    most = _mm256_max_ps(most, _mm256_blendv_ps(lowest, s, _mm256_castsi256_ps(mask)));
  }
  const float largest = max_of_lanes(most);
  const __m256 offset = _mm256_set1_ps(largest);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t j = 0; j < args.n; j += 8) {
    const __m256i mask = lanes_below(args.n - j);
    const __m256 p = exp8(_mm256_sub_ps(_mm256_maskload_ps(args.s + j, mask), offset));
    _mm256_maskstore_ps(args.s + j, mask, p);
    sum = _mm256_add_ps(sum, _mm256_and_ps(p, _mm256_castsi256_ps(mask)));
  }
  *args.largest = largest;
  return sum_of_lanes(sum);
}

}  // namespace pome::kernels
#endif
