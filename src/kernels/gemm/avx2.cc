#include "kernels/gemm/gemm.h"
#include "kernels/weights/loaders_avx2.h"

#if defined(POME_HAVE_AVX2_KERNELS)
namespace pome::kernels {

namespace {

// Lane sums of four vectors, each in the order that gemm.h promises.
POME_INLINE_AVX2 __m128 reduce4(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

POME_INLINE_AVX2 void store_first(float* to, __m128 values, int64_t count) {
  alignas(16) float lanes[4];
  _mm_store_ps(lanes, values);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

// M tokens times N <= 4 rows of weights.
template <int M, int N>
POME_INLINE_AVX2 void panel_tile(const PanelArgs& args, int64_t m0, int64_t n0) {
  const float* x = args.x + m0 * args.ldx;
  const float* w = args.w + n0 * args.ldw;
  __m256 sum[M][4];
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    POME_UNROLL
    for (int n = 0; n < 4; ++n) sum[m][n] = _mm256_setzero_ps();
  }
  int64_t k = 0;
  for (; k + 8 <= args.k; k += 8) {
    __m256 xs[M];
    POME_UNROLL
    for (int m = 0; m < M; ++m) xs[m] = _mm256_loadu_ps(x + m * args.ldx + k);
    POME_UNROLL
    for (int n = 0; n < N; ++n) {
      const __m256 ws = _mm256_loadu_ps(w + n * args.ldw + k);
      POME_UNROLL
      for (int m = 0; m < M; ++m) sum[m][n] = _mm256_fmadd_ps(xs[m], ws, sum[m][n]);
    }
  }
  if (k < args.k) {
    const __m256i mask = first_lanes(args.k - k);
    POME_UNROLL
    for (int n = 0; n < N; ++n) {
      const __m256 ws = _mm256_maskload_ps(w + n * args.ldw + k, mask);
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        const __m256 xs = _mm256_maskload_ps(x + m * args.ldx + k, mask);
        sum[m][n] = _mm256_fmadd_ps(xs, ws, sum[m][n]);
      }
    }
  }
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    float* y = args.y + (m0 + m) * args.ldy + n0;
    const __m128 values = reduce4(sum[m][0], sum[m][1], sum[m][2], sum[m][3]);
    if constexpr (N == 4) {
      _mm_storeu_ps(y, values);
    } else {
      store_first(y, values, N);
    }
  }
}

template <int M>
POME_TARGET_AVX2 void panel_tokens(const PanelArgs& args, int64_t m0) {
  int64_t n = 0;
  for (; n + 4 <= args.n; n += 4) panel_tile<M, 4>(args, m0, n);
  switch (args.n - n) {
    case 3:
      return panel_tile<M, 3>(args, m0, n);
    case 2:
      return panel_tile<M, 2>(args, m0, n);
    case 1:
      return panel_tile<M, 1>(args, m0, n);
    default:
      return;
  }
}

// R rows at once: they share the loads of x and hide the latency of the additions. Meanwhile the
// next R rows are asked for in the order in which they lie, into the second-level cache: no row is
// long enough for the processor's own prefetcher, which stops at the end of a page.
template <typename Loader, int R>
POME_INLINE_AVX2 void gemv_tile(const WeightView& w, int64_t row, const float* x, __m256* sum) {
  const int64_t row_bytes = w.columns / 32 * Loader::kStepBytes;
  auto ahead =
      reinterpret_cast<uintptr_t>(w.parts[0]) + static_cast<uintptr_t>((row + R) * row_bytes);
  Loader loaders[4] = {Loader(w, row), Loader(w, row + (R > 1 ? 1 : 0)),
                       Loader(w, row + (R > 2 ? 2 : 0)), Loader(w, row + (R > 3 ? 3 : 0))};
  POME_UNROLL
  for (int r = 0; r < 4; ++r) sum[r] = _mm256_setzero_ps();
  int64_t k = 0;
  for (; k + 32 <= w.columns; k += 32) {
    POME_UNROLL
    for (int r = 0; r < R; ++r) {
      loaders[r].step32(k);
      _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
      ahead += static_cast<uintptr_t>(Loader::kStepBytes);
    }
    POME_UNROLL
    for (int i = 0; i < 32; i += 8) {
      const __m256 xs = _mm256_loadu_ps(x + k + i);
      POME_UNROLL
      for (int r = 0; r < R; ++r) sum[r] = _mm256_fmadd_ps(xs, loaders[r].load8(k, i), sum[r]);
    }
  }
  if constexpr (Loader::kTail) {
    for (; k + 8 <= w.columns; k += 8) {
      const __m256 xs = _mm256_loadu_ps(x + k);
      POME_UNROLL
      for (int r = 0; r < R; ++r) sum[r] = _mm256_fmadd_ps(xs, loaders[r].load8(k, 0), sum[r]);
    }
    if (k < w.columns) {
      const int64_t rest = w.columns - k;
      const __m256 xs = _mm256_maskload_ps(x + k, first_lanes(rest));
      POME_UNROLL
      for (int r = 0; r < R; ++r) {
        sum[r] = _mm256_fmadd_ps(xs, loaders[r].tail(k, rest), sum[r]);
      }
    }
  }
}

template <typename Loader>
POME_TARGET_AVX2 void gemv_with(const WeightView& w, int64_t row, int64_t rows, const float* x,
                                float* y) {
  __m256 sum[4];
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    gemv_tile<Loader, 4>(w, row + r, x, sum);
    _mm_storeu_ps(y + r, reduce4(sum[0], sum[1], sum[2], sum[3]));
  }
  for (; r < rows; ++r) {
    gemv_tile<Loader, 1>(w, row + r, x, sum);
    store_first(y + r, reduce4(sum[0], sum[1], sum[2], sum[3]), 1);
  }
}

}  // namespace

void panel_avx2(const PanelArgs& args) {
  int64_t m = 0;
  for (; m + 3 <= args.m; m += 3) panel_tokens<3>(args, m);
  if (args.m - m == 2) panel_tokens<2>(args, m);
  if (args.m - m == 1) panel_tokens<1>(args, m);
}

void gemv_f32_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderF32>(w, row, rows, x, y);
}
void gemv_f16_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderF16>(w, row, rows, x, y);
}
void gemv_bf16_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderBF16>(w, row, rows, x, y);
}
void gemv_q8_0_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderQ8_0>(w, row, rows, x, y);
}
void gemv_q4_0_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderQ4_0>(w, row, rows, x, y);
}
void gemv_mxfp4_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderMXFP4>(w, row, rows, x, y);
}
void gemv_int4_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderInt<4>>(w, row, rows, x, y);
}
void gemv_int8_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderInt<8>>(w, row, rows, x, y);
}
void gemv_lut4_avx2(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderLut4>(w, row, rows, x, y);
}

}  // namespace pome::kernels
#endif
