// Attention with f32 arithmetic: few rows, or plans that are exact.
//
// Scores: sixteen partial sums over d = i, i + 16, .. ascending, then halved in a fixed tree, so a
// row's result does not depend on the tile. Products with v: one sum per value, keys ascending.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attention/attention.h"
#include "kernels/attention/load_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

namespace {

// Lane 4 g + e of the result is the sum of the lanes of v[4 g + e].
POME_INLINE_AVX512 __m512 sums_of_lanes(const __m512* v) {
  __m512 quads[4];
  POME_UNROLL
  for (int g = 0; g < 4; ++g) {
    const __m512 a = v[4 * g], b = v[4 * g + 1], c = v[4 * g + 2], d = v[4 * g + 3];
    const __m512d ab =
        _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    const __m512d cd =
        _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
    quads[g] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  }
  __m512 halves[2];
  POME_UNROLL
  for (int h = 0; h < 2; ++h) {
    const __m512 a = quads[2 * h], b = quads[2 * h + 1];
    halves[h] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
  }
  return _mm512_add_ps(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                       _mm512_shuffle_f32x4(halves[0], halves[1], 0xDD));
}

// R rows of q by 16 / R keys: sixteen sums in registers.
template <typename Load, int R>
POME_TARGET_AVX512 void scores_tile(const DirectArgs& args, int64_t row, int64_t key) {
  constexpr int kKeys = 16 / R;
  __m512 sum[16];
  POME_UNROLL
  for (int i = 0; i < 16; ++i) sum[i] = _mm512_setzero_ps();
  const std::byte* rows[kKeys];
  for (int k = 0; k < kKeys; ++k)
    rows[k] = args.cache.data + std::min(key + k, args.n - 1) * args.cache.row_bytes;
  const int64_t dim = args.cache.dim, width = args.cache.width;
  for (int64_t d0 = 0; d0 < dim; d0 += kKvGroup) {
    for (int half = 0; half < kKeys; half += 4) {
      Load k0(rows[half], width), k1(rows[half + 1], width), k2(rows[half + 2], width),
          k3(rows[half + 3], width);
      k0.group(d0 / kKvGroup);
      k1.group(d0 / kKvGroup);
      k2.group(d0 / kKvGroup);
      k3.group(d0 / kKvGroup);
      const int64_t end = std::min(dim, d0 + kKvGroup);
      for (int64_t d = d0; d < end; d += 16) {
        const __mmask16 mask = mask_below(dim - d);
        const __m512 v0 = k0.load(d, mask), v1 = k1.load(d, mask), v2 = k2.load(d, mask),
                     v3 = k3.load(d, mask);
        POME_UNROLL
        for (int r = 0; r < R; ++r) {
          const __m512 q = _mm512_maskz_loadu_ps(mask, args.q + (row + r) * args.ldq + d);
          __m512* s = sum + r * kKeys + half;
          s[0] = _mm512_fmadd_ps(q, v0, s[0]);
          s[1] = _mm512_fmadd_ps(q, v1, s[1]);
          s[2] = _mm512_fmadd_ps(q, v2, s[2]);
          s[3] = _mm512_fmadd_ps(q, v3, s[3]);
        }
      }
    }
  }
  alignas(64) float out[16];
  _mm512_store_ps(out, sums_of_lanes(sum));
  for (int r = 0; r < R; ++r)
    std::memcpy(args.s + (row + r) * kAttentionKeys + key, out + r * kKeys, kKeys * sizeof(float));
}

template <typename Load>
void scores_of(const DirectArgs& args) {
  int64_t r = 0;
  for (; r + 4 <= args.rows; r += 4)
    for (int64_t j = 0; j < args.n; j += 4) scores_tile<Load, 4>(args, r, j);
  for (; r + 2 <= args.rows; r += 2)
    for (int64_t j = 0; j < args.n; j += 8) scores_tile<Load, 2>(args, r, j);
  for (; r < args.rows; ++r)
    for (int64_t j = 0; j < args.n; j += 16) scores_tile<Load, 1>(args, r, j);
}

// R rows by the 64 values of one group.
template <typename Load, int R>
POME_TARGET_AVX512 void mix_tile(const DirectArgs& args, int64_t row, int64_t d0) {
  const int64_t dim = args.cache.dim;
  __mmask16 mask[4];
  for (int c = 0; c < 4; ++c) mask[c] = mask_below(dim - d0 - 16 * c);
  __m512 sum[R][4];
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    POME_UNROLL
    for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_setzero_ps();
  }
  const float* p = args.s + row * kAttentionKeys;
  for (int64_t j = 0; j < args.n; ++j) {
    Load values(args.cache.data + j * args.cache.row_bytes, args.cache.width);
    values.group(d0 / kKvGroup);
    __m512 v[4];
    POME_UNROLL
    for (int c = 0; c < 4; ++c) v[c] = values.load(d0 + 16 * c, mask[c]);
    POME_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m512 weight = _mm512_set1_ps(p[r * kAttentionKeys + j]);
      POME_UNROLL
      for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_fmadd_ps(weight, v[c], sum[r][c]);
    }
  }
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    POME_UNROLL
    for (int c = 0; c < 4; ++c)
      _mm512_mask_storeu_ps(args.y + (row + r) * args.ldy + d0 + 16 * c, mask[c], sum[r][c]);
  }
}

template <typename Load>
void mix_of(const DirectArgs& args) {
  for (int64_t d = 0; d < args.cache.dim; d += kKvGroup) {
    int64_t r = 0;
    for (; r + 4 <= args.rows; r += 4) mix_tile<Load, 4>(args, r, d);
    for (; r + 2 <= args.rows; r += 2) mix_tile<Load, 2>(args, r, d);
    for (; r < args.rows; ++r) mix_tile<Load, 1>(args, r, d);
  }
}

}  // namespace

void scores_avx512(const DirectArgs& args) {
  with_loader(args.cache.kind, [&]<typename Load>() { scores_of<Load>(args); });
}
void mix_avx512(const DirectArgs& args) {
  with_loader(args.cache.kind, [&]<typename Load>() { mix_of<Load>(args); });
}

POME_TARGET_AVX512 float softmax_avx512(const SoftmaxArgs& args) {
  const __m512 lowest = _mm512_set1_ps(-INFINITY);
  const __m512 scale = _mm512_set1_ps(args.scale), cap = _mm512_set1_ps(args.softcap);
  __m512 most = lowest;
  for (int64_t j = 0; j < args.n; j += 16) {
    const __mmask16 mask = mask_below(args.n - j);
    __m512 s = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, args.s + j), scale);
    if (args.softcap > 0) s = _mm512_mul_ps(cap, tanh16(_mm512_div_ps(s, cap)));
    _mm512_mask_storeu_ps(args.s + j, mask, s);
    most = _mm512_mask_max_ps(most, mask, most, s);
  }
  *args.largest = _mm512_reduce_max_ps(most);
  const __m512 offset = _mm512_set1_ps(*args.largest);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < args.n; j += 16) {
    const __mmask16 mask = mask_below(args.n - j);
    const __m512 p = exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, args.s + j), offset));
    _mm512_mask_storeu_ps(args.s + j, mask, p);
    sum = _mm512_mask_add_ps(sum, mask, sum, p);
  }
  return _mm512_reduce_add_ps(sum);
}

}  // namespace pome::kernels
#endif
