#include "encoding/code_streams.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "tensor/half.h"

namespace pome {
namespace {

// Codes are unpacked in steps that keep every step on a whole byte whatever the width.
constexpr int64_t kStep = 2048;
static_assert(kStep % 8 == 0);

// Unpacks `count` codes of kBits from the lowest bit of `in` on. Eight codes are kBits bytes; reads
// no byte beyond the last code's.
template <int kBits>
void unpack(const std::byte* in, int64_t count, uint8_t* out) {
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  for (int64_t i = 0; i < count; i += 8, in += kBits) {
    const int64_t codes = std::min<int64_t>(8, count - i);
    uint64_t word = 0;
    if (codes == 8) {
      std::memcpy(&word, in, kBits);
      for (int j = 0; j < 8; ++j) out[i + j] = static_cast<uint8_t>(word >> (kBits * j) & kMask);
    } else {
      std::memcpy(&word, in, static_cast<size_t>((codes * kBits + 7) / 8));
      for (int j = 0; j < codes; ++j) {
        out[i + j] = static_cast<uint8_t>(word >> (kBits * j) & kMask);
      }
    }
  }
}

void unpack(const std::byte* in, int bits, int64_t count, uint8_t* out) {
  switch (bits) {
    case 1:
      return unpack<1>(in, count, out);
    case 2:
      return unpack<2>(in, count, out);
    case 3:
      return unpack<3>(in, count, out);
    case 4:
      return unpack<4>(in, count, out);
    case 6:
      return unpack<6>(in, count, out);
    default:
      return unpack<8>(in, count, out);
  }
}

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
    unpack(stream + start / 8 * bits, bits, end - start, codes);
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
