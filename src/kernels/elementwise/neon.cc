#include <cmath>

#include "kernels/elementwise/elementwise.h"
#include "kernels/elementwise/math_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

struct Exp {
  POME_INLINE_NEON static float32x4_t of(float32x4_t x) { return exp4(x); }
};
struct Silu {
  POME_INLINE_NEON static float32x4_t of(float32x4_t x) { return times_sigmoid4(x, x); }
};
struct GeluTanh {
  POME_INLINE_NEON static float32x4_t of(float32x4_t x) { return gelu_tanh4(x); }
};
struct Tanh {
  POME_INLINE_NEON static float32x4_t of(float32x4_t x) { return tanh4(x); }
};
struct Relu {
  POME_INLINE_NEON static float32x4_t of(float32x4_t x) { return vmaxq_f32(vdupq_n_f32(0), x); }
};
struct Add {
  POME_INLINE_NEON static float32x4_t of(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
};
struct Mul {
  POME_INLINE_NEON static float32x4_t of(float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }
};

template <typename F>
void map_with(const float* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(y + i, F::of(vld1q_f32(x + i)));
  if (i < n) store_first4(y + i, F::of(load_first4(x + i, n - i)), n - i);
}

template <typename F>
void zip_with(const float* a, const float* b, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(y + i, F::of(vld1q_f32(a + i), vld1q_f32(b + i)));
  if (i < n)
    store_first4(y + i, F::of(load_first4(a + i, n - i), load_first4(b + i, n - i)), n - i);
}

struct Pair {
  float32x4_t first, second;
};
POME_INLINE_NEON Pair rotate(float32x4_t a, float32x4_t b, float32x4_t cos, float32x4_t sin) {
  return {vfmaq_f32(vnegq_f32(vmulq_f32(b, sin)), a, cos), vfmaq_f32(vmulq_f32(a, sin), b, cos)};
}

void rope_row_halves(int64_t half, const float* x, const float* cos, const float* sin, float* y) {
  int64_t p = 0;
  for (; p + 4 <= half; p += 4) {
    const Pair out =
        rotate(vld1q_f32(x + p), vld1q_f32(x + half + p), vld1q_f32(cos + p), vld1q_f32(sin + p));
    vst1q_f32(y + p, out.first);
    vst1q_f32(y + half + p, out.second);
  }
  if (p == half) return;
  const int64_t n = half - p;
  const Pair out = rotate(load_first4(x + p, n), load_first4(x + half + p, n),
                          load_first4(cos + p, n), load_first4(sin + p, n));
  store_first4(y + p, out.first, n);
  store_first4(y + half + p, out.second, n);
}

void rope_row_interleaved(int64_t half, const float* x, const float* cos, const float* sin,
                          float* y) {
  int64_t p = 0;
  for (; p + 4 <= half; p += 4) {
    const float32x4x2_t in = vld2q_f32(x + 2 * p);
    const Pair out = rotate(in.val[0], in.val[1], vld1q_f32(cos + p), vld1q_f32(sin + p));
    const float32x4x2_t both = {{out.first, out.second}};
    vst2q_f32(y + 2 * p, both);
  }
  for (; p < half; ++p) {
    const float a = x[2 * p], b = x[2 * p + 1];
    y[2 * p] = a * cos[p] - b * sin[p];
    y[2 * p + 1] = b * cos[p] + a * sin[p];
  }
}

}  // namespace

void exp_neon(const float* x, float* y, int64_t n) { map_with<Exp>(x, y, n); }
void silu_neon(const float* x, float* y, int64_t n) { map_with<Silu>(x, y, n); }
void gelu_tanh_neon(const float* x, float* y, int64_t n) { map_with<GeluTanh>(x, y, n); }
void tanh_neon(const float* x, float* y, int64_t n) { map_with<Tanh>(x, y, n); }
void relu_neon(const float* x, float* y, int64_t n) { map_with<Relu>(x, y, n); }
void add_neon(const float* a, const float* b, float* y, int64_t n) { zip_with<Add>(a, b, y, n); }
void mul_neon(const float* a, const float* b, float* y, int64_t n) { zip_with<Mul>(a, b, y, n); }

void rms_norm_neon(const NormArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.d;
    float* y = args.y + r * args.d;
    F8 sum = zero8(), other = zero8();
    int64_t i = 0;
    for (; i + 16 <= args.d; i += 16) {
      const F8 a = load8(x + i), b = load8(x + i + 8);
      sum = add_product8(sum, a, a);
      other = add_product8(other, b, b);
    }
    for (; i < args.d; i += 8) {
      const F8 a = args.d - i >= 8 ? load8(x + i) : load_first8(x + i, args.d - i);
      sum = add_product8(sum, a, a);
    }
    const float total =
        sum_of_lanes(vaddq_f32(vaddq_f32(sum.low, other.low), vaddq_f32(sum.high, other.high)));
    const double mean = static_cast<double>(total) / static_cast<double>(args.d);
    const float scale = static_cast<float>(1 / std::sqrt(mean + args.epsilon));
    const float32x4_t scales = vdupq_n_f32(scale);
    for (i = 0; i + 4 <= args.d; i += 4)
      vst1q_f32(y + i, vmulq_f32(vmulq_f32(vld1q_f32(x + i), scales), vld1q_f32(args.gain + i)));
    for (; i < args.d; ++i) y[i] = x[i] * scale * args.gain[i];
  }
}

void rope_neon(const RopeArgs& args) {
  const int64_t half = args.rotary / 2;
  const auto rotate_row = args.interleaved ? rope_row_interleaved : rope_row_halves;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.d;
    float* y = args.y + r * args.d;
    rotate_row(half, x, args.cos + r * half, args.sin + r * half, y);
    if (x != y) {
      std::memcpy(y + args.rotary, x + args.rotary,
                  static_cast<size_t>(args.d - args.rotary) * sizeof(float));
    }
  }
}

}  // namespace pome::kernels
#endif
