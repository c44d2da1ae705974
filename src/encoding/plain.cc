// Element types that are stored as they are. 64-bit values are rounded to the nearest float.
#include <algorithm>
#include <array>

#include "encoding/decoders.h"

namespace pome {
namespace {

template <typename T>
void convert(const std::byte* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, in + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}

// Goes through an aligned buffer: a tensor of a file may start at any byte.
template <typename Convert>
void convert_half(const std::byte* in, int64_t count, float* out, const Convert& convert_span) {
  constexpr int64_t kStep = 1024;
  uint16_t buffer[kStep];
  for (int64_t i = 0; i < count; i += kStep) {
    const size_t step = static_cast<size_t>(std::min(kStep, count - i));
    std::memcpy(buffer, in + 2 * i, 2 * step);
    convert_span(std::span<const uint16_t>(buffer, step), std::span<float>(out + i, step));
  }
}

// A float of 8 bits has 256 values.
void look_up(const std::byte* in, int64_t count, float* out, float (*decode)(uint8_t)) {
  std::array<float, 256> values;
  for (size_t i = 0; i < values.size(); ++i) values[i] = decode(static_cast<uint8_t>(i));
  for (int64_t i = 0; i < count; ++i) out[i] = values[static_cast<size_t>(in[i])];
}

}  // namespace

void decode_f8e4m3(const std::byte* in, int64_t blocks, float* out) {
  look_up(in, blocks, out, f8e4m3_to_f32);
}
void decode_f8e5m2(const std::byte* in, int64_t blocks, float* out) {
  look_up(in, blocks, out, f8e5m2_to_f32);
}
void decode_f32(const std::byte* in, int64_t blocks, float* out) {
  if (blocks > 0) std::memcpy(out, in, static_cast<size_t>(blocks) * sizeof(float));
}
void decode_f16(const std::byte* in, int64_t blocks, float* out) {
  convert_half(in, blocks, out, [](auto from, auto to) { f16_to_f32(from, to); });
}
void decode_bf16(const std::byte* in, int64_t blocks, float* out) {
  convert_half(in, blocks, out, [](auto from, auto to) { bf16_to_f32(from, to); });
}
void decode_f64(const std::byte* in, int64_t blocks, float* out) {
  convert<double>(in, blocks, out);
}
void decode_i8(const std::byte* in, int64_t blocks, float* out) {
  convert<int8_t>(in, blocks, out);
}
void decode_i16(const std::byte* in, int64_t blocks, float* out) {
  convert<int16_t>(in, blocks, out);
}
void decode_i32(const std::byte* in, int64_t blocks, float* out) {
  convert<int32_t>(in, blocks, out);
}
void decode_i64(const std::byte* in, int64_t blocks, float* out) {
  convert<int64_t>(in, blocks, out);
}

}  // namespace pome
