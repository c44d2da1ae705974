#include <cmath>

#include "kernels/attention/attention.h"
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
    const __m256 factor = _mm256_broadcast_ss(args.factor + r0 + r);
    float* y = args.y + (r0 + r) * args.ldy + d0;
    POME_UNROLL
    for (int c = 0; c < C; ++c) {
      const __m256 value = _mm256_mul_ps(sum[r][c], factor);
      if (masked) {
        _mm256_maskstore_ps(y + c * 8, mask, value);
      } else {
        _mm256_storeu_ps(y + c * 8, value);
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

}  // namespace

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
  float largest = max_of_lanes(most);
  if (args.sink && *args.sink > largest) largest = *args.sink;
  const __m256 offset = _mm256_set1_ps(largest);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t j = 0; j < args.n; j += 8) {
    const __m256i mask = lanes_below(args.n - j);
    const __m256 p = exp8(_mm256_sub_ps(_mm256_maskload_ps(args.s + j, mask), offset));
    _mm256_maskstore_ps(args.s + j, mask, p);
    sum = _mm256_add_ps(sum, _mm256_and_ps(p, _mm256_castsi256_ps(mask)));
  }
  float total = sum_of_lanes(sum);
  if (args.sink) total += std::exp(*args.sink - largest);
  return 1.0f / total;
}

}  // namespace pome::kernels
#endif
