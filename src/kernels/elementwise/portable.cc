#include <cmath>
#include <cstring>

#include "kernels/elementwise/elementwise.h"

namespace pome::kernels {

void exp_portable(const float* x, float* y, int64_t n) {
  // Results below the normal range are 0 on every instruction set.
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] < -87.3f ? 0.0f : std::exp(x[i]);
}
void silu_portable(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] / (1.0f + std::exp(-x[i]));
}
void gelu_portable(const float* x, float* y, int64_t n) {
  // erfc keeps its relative precision where 1 + erf cancels.
  for (int64_t i = 0; i < n; ++i) y[i] = 0.5f * x[i] * std::erfc(-0.70710678f * x[i]);
}
void gelu_tanh_portable(const float* x, float* y, int64_t n) {
  // (1 + tanh(u)) / 2 = 1 / (1 + e^(-2u)), which does not cancel; 2 sqrt(2/pi) = 1.5957691.
  for (int64_t i = 0; i < n; ++i) {
    const float u2 = 1.5957691f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
    y[i] = x[i] / (1.0f + std::exp(-u2));
  }
}
void tanh_portable(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::tanh(x[i]);
}
void relu_portable(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? 0.0f : x[i];
}
void add_portable(const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}
void mul_portable(const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

void rms_norm_portable(const NormArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.d;
    float* y = args.y + r * args.d;
    double sum = 0;
    for (int64_t i = 0; i < args.d; ++i) sum += static_cast<double>(x[i]) * x[i];
    const double mean = sum / static_cast<double>(args.d);
    const float scale = static_cast<float>(1 / std::sqrt(mean + args.epsilon));
    for (int64_t i = 0; i < args.d; ++i) y[i] = x[i] * scale * args.gain[i];
  }
}

void rope_portable(const RopeArgs& args) {
  const int64_t half = args.rotary / 2;
  const int64_t step = args.interleaved ? 2 : 1, distance = args.interleaved ? 1 : half;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.d;
    const float* cos = args.cos + r * half;
    const float* sin = args.sin + r * half;
    float* y = args.y + r * args.d;
    for (int64_t p = 0; p < half; ++p) {
      const int64_t i = p * step, j = i + distance;
      const float a = x[i], b = x[j];
      y[i] = a * cos[p] - b * sin[p];
      y[j] = b * cos[p] + a * sin[p];
    }
    if (x != y) {
      std::memcpy(y + args.rotary, x + args.rotary,
                  static_cast<size_t>(args.d - args.rotary) * sizeof(float));
    }
  }
}

}  // namespace pome::kernels
