// IEEE binary16 and bfloat16: bit-exact conversions, round to nearest even, NaN stays NaN (quiet).
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace pome {

float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
// One rounding, where a trip through f32 would round twice.
uint16_t f64_to_f16(double value);
uint16_t f64_to_bf16(double value);
// The value after a trip through binary16.
inline float round_to_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

// Spans of equal length. They use F16C where the processor has it, with the same results.
void f16_to_f32(std::span<const uint16_t> in, std::span<float> out);
void f32_to_f16(std::span<const float> in, std::span<uint16_t> out);
void bf16_to_f32(std::span<const uint16_t> in, std::span<float> out);
void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out);

// OCP 8-bit floating point formats (OFP8 specification 1.0): E4M3 has no infinity and one NaN code
// per sign; E5M2 is binary16 cut to its upper byte. Round to nearest even; E4M3 beyond 448 (after
// rounding) gives NaN, E5M2 beyond its range infinity.
float f8e4m3_to_f32(uint8_t bits);
float f8e5m2_to_f32(uint8_t bits);
uint8_t f64_to_f8e4m3(double value);
uint8_t f64_to_f8e5m2(double value);

namespace detail {
// Nearest f32, with the last bit set when inexact: rounding the result once more to a type with at
// most 22 bits of precision equals rounding `value` directly (Boldo and Melquiond, "When double
// rounding is odd").
float round_to_odd(double value);
// The span conversions without F16C, for tests.
void f16_to_f32_portable(std::span<const uint16_t> in, std::span<float> out);
void f32_to_f16_portable(std::span<const float> in, std::span<uint16_t> out);
}  // namespace detail

}  // namespace pome
