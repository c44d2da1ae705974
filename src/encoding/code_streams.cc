#include "encoding/code_streams.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

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

void decode_vectors(const Encoding& encoding, int64_t rows, int64_t columns,
                    std::span<const std::byte> indices, std::span<const std::byte> tables,
                    float* out) {
  const auto width = static_cast<size_t>(encoding.vector), k = static_cast<size_t>(columns);
  const size_t floats = (size_t{1} << encoding.bits) * width;
  std::vector<uint8_t> row(k);
  std::vector<uint16_t> halves(floats);
  std::vector<float> table(floats);
  int64_t loaded = -1;
  for (int64_t r = 0; r < rows; r += encoding.vector) {
    if (const int64_t wanted = r / encoding.group; wanted != loaded) {
      std::memcpy(halves.data(), tables.data() + static_cast<size_t>(wanted) * floats * 2,
                  floats * 2);
      f16_to_f32(std::span<const uint16_t>(halves), std::span<float>(table));
      loaded = wanted;
    }
    unpack_bits(indices, encoding.bits, r / encoding.vector * columns, row);
    float* const to = out + r * columns;
    for (size_t v = 0; v < width; ++v)
      for (size_t c = 0; c < k; ++c) to[v * k + c] = table[row[c] * width + v];
  }
}

bool decode_sparse(const Encoding& encoding, int64_t rows, int64_t columns,
                   std::span<const std::span<const std::byte>> parts, float* out) {
  const auto keep = static_cast<size_t>(encoding.keep), k = static_cast<size_t>(columns);
  const int bits = encoding.bits, sign = 1 << (bits > 0 ? bits - 1 : 0);
  std::vector<uint8_t> mask(k), codes(keep);
  for (int64_t r = 0; r < rows; ++r, out += columns) {
    unpack_bits(parts[0], 1, r * columns, mask);
    if (static_cast<size_t>(std::count(mask.begin(), mask.end(), uint8_t{1})) != keep) return false;
    const int64_t first = r * encoding.keep;
    if (bits > 0) unpack_bits(parts[1], bits, first, codes);
    const int64_t table = bits > 0 && encoding.group > 0 ? (r / encoding.group) << bits : 0;
    size_t next = 0;
    for (size_t c = 0; c < k; ++c) {
      out[c] = 0;
      if (mask[c] == 0) continue;
      const size_t at = next++;
      if (encoding.kind == EncodingKind::kSparseF16) {
        out[c] = half_at(parts[1].data(), first + static_cast<int64_t>(at));
      } else if (encoding.kind == EncodingKind::kSparseInt) {
        out[c] =
            half_at(parts[2].data(), (r * columns + static_cast<int64_t>(c)) / encoding.block) *
            static_cast<float>((codes[at] ^ sign) - sign);
      } else {
        out[c] = half_at(parts[2].data(), table + codes[at]);
      }
    }
  }
  return true;
}

}  // namespace pome
