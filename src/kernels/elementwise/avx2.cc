#include <cmath>
#include <cstring>

#include "kernels/elementwise/elementwise.h"
#include "kernels/elementwise/math_avx2.h"

#if defined(POME_HAVE_AVX2_KERNELS)
namespace pome::kernels {

namespace {

struct Exp {
  POME_INLINE_AVX2 static __m256 of(__m256 x) { return exp8(x); }
};
struct Silu {
  POME_INLINE_AVX2 static __m256 of(__m256 x) { return times_sigmoid8(x, x); }
};
struct GeluTanh {
  POME_INLINE_AVX2 static __m256 of(__m256 x) { return gelu_tanh8(x); }
};
struct Tanh {
  POME_INLINE_AVX2 static __m256 of(__m256 x) { return tanh8(x); }
};
struct Relu {  // the second operand of max wins for NaN
  POME_INLINE_AVX2 static __m256 of(__m256 x) { return _mm256_max_ps(_mm256_setzero_ps(), x); }
};
struct Add {
  POME_INLINE_AVX2 static __m256 of(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
};
struct Mul {
  POME_INLINE_AVX2 static __m256 of(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
};

template <typename F>
POME_TARGET_AVX2 void map_with(const float* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, F::of(_mm256_loadu_ps(x + i)));
  if (i < n) {
    const __m256i mask = lanes_below(n - i);
    _mm256_maskstore_ps(y + i, mask, F::of(_mm256_maskload_ps(x + i, mask)));
  }
}

template <typename F>
POME_TARGET_AVX2 void zip_with(const float* a, const float* b, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(y + i, F::of(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));
  }
  if (i < n) {
    const __m256i mask = lanes_below(n - i);
    _mm256_maskstore_ps(y + i, mask,
                        F::of(_mm256_maskload_ps(a + i, mask), _mm256_maskload_ps(b + i, mask)));
  }
}

POME_INLINE_AVX2 void rope_row_halves(const RopeArgs& args, const float* x, const float* cos,
                                      const float* sin, float* y) {
  const int64_t half = args.rotary / 2;
  for (int64_t p = 0; p < half; p += 8) {
    const __m256i mask = lanes_below(half - p);
    const __m256 a = _mm256_maskload_ps(x + p, mask), b = _mm256_maskload_ps(x + half + p, mask);
    const __m256 c = _mm256_maskload_ps(cos + p, mask), s = _mm256_maskload_ps(sin + p, mask);
    _mm256_maskstore_ps(y + p, mask, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_maskstore_ps(y + half + p, mask, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
}

POME_INLINE_AVX2 void rope_row_interleaved(const RopeArgs& args, const float* x, const float* cos,
                                           const float* sin, float* y) {
  const int64_t half = args.rotary / 2;
  for (int64_t p = 0; p < half; ++p) {
    const float a = x[2 * p], b = x[2 * p + 1];
    y[2 * p] = a * cos[p] - b * sin[p];
    y[2 * p + 1] = b * cos[p] + a * sin[p];
  }
}

}  // namespace

void exp_avx2(const float* x, float* y, int64_t n) { map_with<Exp>(x, y, n); }
void silu_avx2(const float* x, float* y, int64_t n) { map_with<Silu>(x, y, n); }
void gelu_tanh_avx2(const float* x, float* y, int64_t n) { map_with<GeluTanh>(x, y, n); }
void tanh_avx2(const float* x, float* y, int64_t n) { map_with<Tanh>(x, y, n); }
void relu_avx2(const float* x, float* y, int64_t n) { map_with<Relu>(x, y, n); }
void add_avx2(const float* a, const float* b, float* y, int64_t n) { zip_with<Add>(a, b, y, n); }
void mul_avx2(const float* a, const float* b, float* y, int64_t n) { zip_with<Mul>(a, b, y, n); }

POME_TARGET_AVX2 void rms_norm_avx2(const NormArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.d;
    float* y = args.y + r * args.d;
    __m256 sum = _mm256_setzero_ps(), other = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 16 <= args.d; i += 16) {
      const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
      sum = _mm256_fmadd_ps(a, a, sum);
      other = _mm256_fmadd_ps(b, b, other);
    }
    for (; i < args.d; i += 8) {
      const __m256 a = _mm256_maskload_ps(x + i, lanes_below(args.d - i));
      sum = _mm256_fmadd_ps(a, a, sum);
    }
    const double mean = sum_of_lanes(_mm256_add_ps(sum, other)) / static_cast<double>(args.d);
    const __m256 scale = _mm256_set1_ps(static_cast<float>(1 / std::sqrt(mean + args.epsilon)));
    for (i = 0; i < args.d; i += 8) {
      const __m256i mask = lanes_below(args.d - i);
      const __m256 scaled = _mm256_mul_ps(_mm256_maskload_ps(x + i, mask), scale);
      const __m256 gain = _mm256_maskload_ps(args.gain + i, mask);
      _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(scaled, gain));
    }
  }
}

POME_TARGET_AVX2 void rope_avx2(const RopeArgs& args) {
  const int64_t half = args.rotary / 2;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.d;
    float* y = args.y + r * args.d;
    if (args.interleaved) {
      rope_row_interleaved(args, x, args.cos + r * half, args.sin + r * half, y);
    } else {
      rope_row_halves(args, x, args.cos + r * half, args.sin + r * half, y);
    }
    if (x != y) {
      std::memcpy(y + args.rotary, x + args.rotary,
                  static_cast<size_t>(args.d - args.rotary) * sizeof(float));
    }
  }
}

}  // namespace pome::kernels
#endif
