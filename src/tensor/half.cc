#include "tensor/half.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/cpu_features.h"
#include "base/status.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define POME_F16C 1
#endif

namespace pome {
namespace {

// A code of `exponent_bits` and `mantissa_bits` below a sign, as an f32 pattern. Infinity and NaN
// of the IEEE kind when the exponent is all ones.
uint32_t widen(uint32_t code, int exponent_bits, int mantissa_bits) {
  const uint32_t sign = (code >> (exponent_bits + mantissa_bits)) << 31;
  const uint32_t exponent = (code >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  if (exponent == 0) {
    if (mantissa == 0) return sign;
    // Subnormal: mantissa * 2^(1 - bias - mantissa_bits), a normal f32.
    const int top = std::bit_width(mantissa) - 1;
    const uint32_t fraction = (mantissa << (23 - top)) & 0x7FFFFFu;
    const uint32_t biased = static_cast<uint32_t>(top + 1 - bias - mantissa_bits + 127);
    return sign | (biased << 23) | fraction;
  }
  return sign | ((exponent + 127u - static_cast<uint32_t>(bias)) << 23) |
         (mantissa << (23 - mantissa_bits));
}

// Magnitude of an f32 pattern (finite) to the narrower format, round to nearest even. The result
// may reach or pass the code of infinity; the caller decides what that means.
uint32_t narrow(uint32_t magnitude, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  const int drop = 23 - mantissa_bits;
  if (exponent >= 1 - bias) {
    const uint32_t rebased = magnitude - (static_cast<uint32_t>(127 - bias) << 23);
    const uint32_t half_below = (1u << (drop - 1)) - 1;
    return (rebased + half_below + ((rebased >> drop) & 1u)) >> drop;
  }
  // Subnormal in the narrow format; the carry out of the top makes the smallest normal.
  const int shift = drop + (1 - bias - exponent);
  if (shift > 24) return 0;  // below half of the smallest subnormal
  const uint32_t mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
  const uint32_t half_below = (1u << (shift - 1)) - 1;
  return (mantissa + half_below + ((mantissa >> shift) & 1u)) >> shift;
}

#if defined(POME_F16C)
__attribute__((target("avx,f16c"))) size_t f16_to_f32_f16c(std::span<const uint16_t> in,
                                                           std::span<float> out) {
  size_t i = 0;
  for (; i + 8 <= in.size(); i += 8)
    _mm256_storeu_ps(
        out.data() + i,
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in.data() + i))));
  return i;
}
__attribute__((target("avx,f16c"))) size_t f32_to_f16_f16c(std::span<const float> in,
                                                           std::span<uint16_t> out) {
  size_t i = 0;
  for (; i + 8 <= in.size(); i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.data() + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in.data() + i), _MM_FROUND_TO_NEAREST_INT));
  return i;
}
#endif

}  // namespace

float f16_to_f32(uint16_t bits) {
  if ((bits & 0x7C00u) == 0x7C00u) {
    const uint32_t mantissa = bits & 0x3FFu;
    const uint32_t quiet = mantissa ? 0x400000u : 0u;
    return std::bit_cast<float>((uint32_t{bits} & 0x8000u) << 16 | 0x7F800000u | quiet |
                                mantissa << 13);
  }
  return std::bit_cast<float>(widen(bits, 5, 10));
}

uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u)
    return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 65536 and above
  return static_cast<uint16_t>(sign | narrow(magnitude, 5, 10));
}

uint16_t f64_to_f16(double value) { return f32_to_f16(detail::round_to_odd(value)); }
uint16_t f64_to_bf16(double value) { return f32_to_bf16(detail::round_to_odd(value)); }

namespace detail {

float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (std::isnan(value) || std::isinf(value) || static_cast<double>(nearest) == value)
    return nearest;
  // Toward zero first, then the sticky bit.
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

void f16_to_f32_portable(std::span<const uint16_t> in, std::span<float> out) {
  for (size_t i = 0; i < in.size(); ++i) out[i] = f16_to_f32(in[i]);
}
void f32_to_f16_portable(std::span<const float> in, std::span<uint16_t> out) {
  for (size_t i = 0; i < in.size(); ++i) out[i] = f32_to_f16(in[i]);
}

}  // namespace detail

void f16_to_f32(std::span<const uint16_t> in, std::span<float> out) {
  POME_CHECK(in.size() == out.size());
  size_t done = 0;
#if defined(POME_F16C)
  if (cpu_flags().f16c) done = f16_to_f32_f16c(in, out);
#endif
  detail::f16_to_f32_portable(in.subspan(done), out.subspan(done));
}

void f32_to_f16(std::span<const float> in, std::span<uint16_t> out) {
  POME_CHECK(in.size() == out.size());
  size_t done = 0;
#if defined(POME_F16C)
  if (cpu_flags().f16c) done = f32_to_f16_f16c(in, out);
#endif
  detail::f32_to_f16_portable(in.subspan(done), out.subspan(done));
}

void bf16_to_f32(std::span<const uint16_t> in, std::span<float> out) {
  POME_CHECK(in.size() == out.size());
  for (size_t i = 0; i < in.size(); ++i) out[i] = bf16_to_f32(in[i]);
}

void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out) {
  POME_CHECK(in.size() == out.size());
  for (size_t i = 0; i < in.size(); ++i) out[i] = f32_to_bf16(in[i]);
}

float f8e4m3_to_f32(uint8_t bits) {
  if ((bits & 0x7Fu) == 0x7Fu)
    return std::bit_cast<float>((uint32_t{bits} & 0x80u) << 24 | 0x7FC00000u);
  return std::bit_cast<float>(widen(bits, 4, 3));
}

float f8e5m2_to_f32(uint8_t bits) { return f16_to_f32(static_cast<uint16_t>(bits << 8)); }

uint8_t f64_to_f8e4m3(double value) {
  const uint32_t bits = std::bit_cast<uint32_t>(detail::round_to_odd(value));
  const uint32_t sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude >= 0x7F800000u) return static_cast<uint8_t>(sign | 0x7Fu);
  return static_cast<uint8_t>(sign | std::min(narrow(magnitude, 4, 3), 0x7Fu));
}

uint8_t f64_to_f8e5m2(double value) {
  const uint32_t bits = std::bit_cast<uint32_t>(detail::round_to_odd(value));
  const uint32_t sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint8_t>(sign | 0x7Fu);
  return static_cast<uint8_t>(sign | std::min(narrow(magnitude, 5, 2), 0x7Cu));
}

}  // namespace pome
