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

// Calls use(i, code) for codes [first, first + count) of a stream.
template <typename Use>
void for_each_code(const std::byte* stream, int bits, int64_t first, int64_t count,
                   const Use& use) {
  uint8_t codes[kStep];
  for (int64_t done = 0; done < count; done += kStep) {
    const int64_t size = std::min(kStep, count - done), at = first + done;
    // The bytes that these codes touch, and no other.
    const int64_t byte = at / 8 * bits, rest = at % 8;
    const auto bytes = static_cast<size_t>(((rest + size) * bits + 7) / 8);
    unpack_bits({stream + byte, bytes}, bits, rest, {codes, static_cast<size_t>(size)});
    for (int64_t i = 0; i < size; ++i) use(done + i, codes[i]);
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

void decode_vector_row(const Encoding& encoding, int64_t row, int64_t columns,
                       const std::byte* const* parts, float* out) {
  const size_t entries = size_t{1} << encoding.bits;
  const auto width = static_cast<size_t>(encoding.vector);
  const std::byte* const table =
      parts[1] + static_cast<size_t>(row / encoding.group) * entries * width * 2;
  float values[256];
  for (size_t i = 0; i < entries; ++i)
    values[i] = half_at(table, static_cast<int64_t>(i) * encoding.vector + row % encoding.vector);
  const int64_t first = row / encoding.vector * columns;
  for_each_code(parts[0], encoding.bits, first, columns,
                [&](int64_t at, uint8_t index) { out[at] = values[index]; });
}

bool decode_sparse_row(const Encoding& encoding, int64_t row, int64_t columns,
                       const std::byte* const* parts, float* out) {
  const auto keep = static_cast<size_t>(encoding.keep);
  const int64_t first = row * encoding.keep;
  std::vector<float> values(keep);
  if (encoding.kind == EncodingKind::kSparseF16) {
    for (size_t i = 0; i < keep; ++i)
      values[i] = half_at(parts[1], first + static_cast<int64_t>(i));
  } else {
    const int sign = 1 << (encoding.bits - 1);
    const bool integers = encoding.kind == EncodingKind::kSparseInt;
    const int64_t table = integers ? 0 : row / encoding.group << encoding.bits;
    for_each_code(parts[1], encoding.bits, first, encoding.keep, [&](int64_t at, uint8_t code) {
      values[static_cast<size_t>(at)] =
          integers ? static_cast<float>((code ^ sign) - sign) : half_at(parts[2], table + code);
    });
  }
  size_t next = 0;
  bool fits = true;
  for_each_code(parts[0], 1, row * columns, columns, [&](int64_t at, uint8_t is_one) {
    out[at] = 0;
    if (is_one == 0) return;
    if (next == keep) {
      fits = false;
      return;
    }
    out[at] = values[next++];
    if (encoding.kind == EncodingKind::kSparseInt)
      out[at] *= half_at(parts[2], (row * columns + at) / encoding.block);
  });
  return fits && next == keep;
}

}  // namespace pome
