#include "kernels/gemm/gemm.h"
#include "kernels/weights/loaders_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

// Lane sums of four vectors, each in the order that gemm.h promises.
POME_INLINE_NEON float32x4_t reduce4(F8 a, F8 b, F8 c, F8 d) {
  const float32x4_t low = vpaddq_f32(vpaddq_f32(a.low, b.low), vpaddq_f32(c.low, d.low));
  const float32x4_t high = vpaddq_f32(vpaddq_f32(a.high, b.high), vpaddq_f32(c.high, d.high));
  return vaddq_f32(low, high);
}

// M tokens times N <= 4 rows of weights.
template <int M, int N>
POME_INLINE_NEON void panel_tile(const PanelArgs& args, int64_t m0, int64_t n0) {
  const float* x = args.x + m0 * args.ldx;
  const float* w = args.w + n0 * args.ldw;
  F8 sum[M][4];
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    POME_UNROLL
    for (int n = 0; n < 4; ++n) sum[m][n] = zero8();
  }
  int64_t k = 0;
  for (; k + 8 <= args.k; k += 8) {
    F8 xs[M];
    POME_UNROLL
    for (int m = 0; m < M; ++m) xs[m] = load8(x + m * args.ldx + k);
    POME_UNROLL
    for (int n = 0; n < N; ++n) {
      const F8 ws = load8(w + n * args.ldw + k);
      POME_UNROLL
      for (int m = 0; m < M; ++m) sum[m][n] = add_product8(sum[m][n], xs[m], ws);
    }
  }
  if (k < args.k) {
    const int64_t rest = args.k - k;
    POME_UNROLL
    for (int n = 0; n < N; ++n) {
      const F8 ws = load_first8(w + n * args.ldw + k, rest);
      POME_UNROLL
      for (int m = 0; m < M; ++m)
        sum[m][n] = add_product8(sum[m][n], load_first8(x + m * args.ldx + k, rest), ws);
    }
  }
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    float* y = args.y + (m0 + m) * args.ldy + n0;
    const float32x4_t values = reduce4(sum[m][0], sum[m][1], sum[m][2], sum[m][3]);
    if constexpr (N == 4) {
      vst1q_f32(y, values);
    } else {
      store_first4(y, values, N);
    }
  }
}

template <int M>
void panel_tokens(const PanelArgs& args, int64_t m0) {
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

// R rows at once: they share the loads of x and hide the latency of the additions.
template <typename Loader, int R>
POME_INLINE_NEON void gemv_tile(const WeightView& w, int64_t row, const float* x, F8* sum) {
  Loader loaders[4] = {Loader(w, row), Loader(w, row + (R > 1 ? 1 : 0)),
                       Loader(w, row + (R > 2 ? 2 : 0)), Loader(w, row + (R > 3 ? 3 : 0))};
  POME_UNROLL
  for (int r = 0; r < 4; ++r) sum[r] = zero8();
  int64_t k = 0;
  for (; k + 32 <= w.columns; k += 32) {
    POME_UNROLL
    for (int r = 0; r < R; ++r) loaders[r].step32(k);
    POME_UNROLL
    for (int i = 0; i < 32; i += 8) {
      const F8 xs = load8(x + k + i);
      POME_UNROLL
      for (int r = 0; r < R; ++r) sum[r] = add_product8(sum[r], xs, loaders[r].next8(k, i));
    }
  }
  if constexpr (Loader::kTail) {
    for (; k + 8 <= w.columns; k += 8) {
      const F8 xs = load8(x + k);
      POME_UNROLL
      for (int r = 0; r < R; ++r) sum[r] = add_product8(sum[r], xs, loaders[r].next8(k, 0));
    }
    if (k < w.columns) {
      const int64_t rest = w.columns - k;
      const F8 xs = load_first8(x + k, rest);
      POME_UNROLL
      for (int r = 0; r < R; ++r) sum[r] = add_product8(sum[r], xs, loaders[r].tail(k, rest));
    }
  }
}

template <typename Loader>
void gemv_with(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  F8 sum[4];
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    gemv_tile<Loader, 4>(w, row + r, x, sum);
    vst1q_f32(y + r, reduce4(sum[0], sum[1], sum[2], sum[3]));
  }
  for (; r < rows; ++r) {
    gemv_tile<Loader, 1>(w, row + r, x, sum);
    store_first4(y + r, reduce4(sum[0], sum[1], sum[2], sum[3]), 1);
  }
}

}  // namespace

void panel_neon(const PanelArgs& args) {
  int64_t m = 0;
  for (; m + 3 <= args.m; m += 3) panel_tokens<3>(args, m);
  if (args.m - m == 2) panel_tokens<2>(args, m);
  if (args.m - m == 1) panel_tokens<1>(args, m);
}

void gemv_f32_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderF32>(w, row, rows, x, y);
}
void gemv_f16_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderF16>(w, row, rows, x, y);
}
void gemv_bf16_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderBF16>(w, row, rows, x, y);
}
void gemv_q8_0_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderQ8_0>(w, row, rows, x, y);
}
void gemv_q4_0_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderQ4_0>(w, row, rows, x, y);
}
void gemv_mxfp4_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderMXFP4>(w, row, rows, x, y);
}
void gemv_int4_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderInt<4>>(w, row, rows, x, y);
}
void gemv_int8_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderInt<8>>(w, row, rows, x, y);
}
void gemv_lut4_neon(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y) {
  gemv_with<LoaderLut4>(w, row, rows, x, y);
}

}  // namespace pome::kernels
#endif
