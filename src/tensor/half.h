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
// The value after a trip through binary16.
inline float round_to_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

// Spans of equal length. They use F16C where the processor has it, with the same results.
void f16_to_f32(std::span<const uint16_t> in, std::span<float> out);
void f32_to_f16(std::span<const float> in, std::span<uint16_t> out);
void bf16_to_f32(std::span<const uint16_t> in, std::span<float> out);
void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out);

}  // namespace pome
