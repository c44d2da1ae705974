#include "encoding/code_streams.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome {
namespace {

// Codes are unpacked in steps that keep every step on a whole byte whatever the width.
constexpr int64_t kStep = 2048;
static_assert(kStep % 8 == 0);

float half_at(const std::byte* halves, int64_t index) {
  uint16_t bits;
  std::memcpy(&bits, halves + 2 * index, sizeof bits);
  return f16_to_f32(bits);
}

// Calls use(codes, first, size) for runs that lie in one step and in one period.
template <typename Use>
void for_each_run(const std::byte* stream, int bits, int64_t count, int64_t period,
                  const Use& use) {
  uint8_t codes[kStep];
  for (int64_t start = 0; start < count; start += kStep) {
    const int64_t end = std::min(count, start + kStep);
    const size_t bytes = static_cast<size_t>(((end - start) * bits + 7) / 8);
    unpack_bits({stream + start / 8 * bits, bytes}, bits, 0,
                {codes, static_cast<size_t>(end - start)});
    for (int64_t first = start; first < end;) {
      const int64_t size = std::min(end - first, period - first % period);
      use(codes + (first - start), first, size);
      first += size;
    }
  }
}

}  // namespace

void decode_int_stream(const std::byte* codes, int bits, int64_t count, int64_t block,
                       const std::byte* scales, float* out) {
  const int sign = 1 << (bits - 1);
  for_each_run(codes, bits, count, block, [&](const uint8_t* code, int64_t first, int64_t size) {
    const float scale = half_at(scales, first / block);
    for (int64_t i = 0; i < size; ++i) {
      out[first + i] = scale * static_cast<float>((code[i] ^ sign) - sign);
    }
  });
}

void decode_lut_stream(const std::byte* indices, int bits, int64_t count, int64_t per_table,
                       const std::byte* tables, float* out) {
  const size_t entries = size_t{1} << bits;
  uint16_t halves[256];
  float table[256];
  int64_t loaded = -1;
  for_each_run(
      indices, bits, count, per_table, [&](const uint8_t* index, int64_t first, int64_t size) {
        if (const int64_t wanted = first / per_table; wanted != loaded) {
          std::memcpy(halves, tables + wanted * static_cast<int64_t>(2 * entries), 2 * entries);
          f16_to_f32(std::span<const uint16_t>(halves, entries), std::span<float>(table, entries));
          loaded = wanted;
        }
        for (int64_t i = 0; i < size; ++i) out[first + i] = table[index[i]];
      });
}

}  // namespace pome
