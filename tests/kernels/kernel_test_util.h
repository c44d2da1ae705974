// Random operands and the walk over kernels that this machine can run.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "base/cpu_features.h"
#include "encoding/encoding.h"
#include "kernels/weights/weights.h"
#include "support/normal_values.h"
#include "tensor/half.h"

namespace pome::kernels {

inline bool runs_here(Isa isa) {
  const std::vector<Isa> isas = available_isas();
  return std::find(isas.begin(), isas.end(), isa) != isas.end();
}

inline std::vector<float> random_floats(int64_t count, uint32_t seed, float scale = 1.0f) {
  return test::normal_values(seed, count, scale);
}

// A matrix of random bytes in an encoding; scales and tables are ordinary numbers.
struct RandomWeight {
  RandomWeight(const Encoding& encoding, int64_t rows, int64_t columns, uint32_t seed) {
    const auto layout = encoded_layout(encoding, rows, columns);
    if (!layout.ok()) return;
    std::mt19937 random(seed);
    for (const uint64_t bytes : layout->part_bytes) {
      parts.emplace_back(static_cast<size_t>(bytes));
      for (std::byte& byte : parts.back()) byte = static_cast<std::byte>(random());
    }
    const auto set_half = [&](std::vector<std::byte>& part, size_t at) {
      const uint16_t bits = f32_to_f16(std::normal_distribution<float>(0.0f, 0.1f)(random));
      part[at] = static_cast<std::byte>(bits & 0xFF);
      part[at + 1] = static_cast<std::byte>(bits >> 8);
    };
    const EncodingTraits& t = traits(encoding.kind);
    if (parts.size() > 1)
      for (size_t i = 0; i < parts[1].size(); i += 2) set_half(parts[1], i);
    if (encoding.kind == EncodingKind::kF16)
      for (size_t i = 0; i < parts[0].size(); i += 2) set_half(parts[0], i);
    if (encoding.kind == EncodingKind::kF32 || encoding.kind == EncodingKind::kBF16) {
      const size_t size = static_cast<size_t>(t.block_bytes);
      for (size_t i = 0; i < parts[0].size(); i += size) {
        // Small exponents of either sign.
        auto& top = parts[0][i + size - 1];
        top = (top & std::byte{0x80}) | std::byte{0x3D};
      }
    }
    for (const int at : half_fields(encoding.kind))
      for (size_t i = 0; i < parts[0].size(); i += static_cast<size_t>(t.block_bytes))
        set_half(parts[0], i + static_cast<size_t>(at));
    if (encoding.kind == EncodingKind::kMXFP4)
      for (size_t i = 0; i < parts[0].size(); i += static_cast<size_t>(t.block_bytes))
        parts[0][i] = static_cast<std::byte>(118 + random() % 10);
    std::vector<const std::byte*> starts;
    for (const auto& part : parts) starts.push_back(part.data());
    view = weight_view(encoding, rows, columns, starts);
    // What the encoding module says they mean.
    std::vector<std::span<const std::byte>> spans(parts.begin(), parts.end());
    values.resize(static_cast<size_t>(rows * columns));
    valid = decode_rows(encoding, rows, columns, spans, values.data()).ok();
  }
  // Where the blocks of a kind hold binary16 numbers.
  static std::vector<int> half_fields(EncodingKind kind) {
    switch (kind) {
      case EncodingKind::kQ8_0:
      case EncodingKind::kQ4_0:
      case EncodingKind::kQ5_0:
      case EncodingKind::kIQ4_NL:
      case EncodingKind::kIQ4_XS:
        return {0};
      case EncodingKind::kQ4_1:
      case EncodingKind::kQ5_1:
      case EncodingKind::kQ4_K:
      case EncodingKind::kQ5_K:
        return {0, 2};
      case EncodingKind::kQ2_K:
        return {80, 82};
      case EncodingKind::kQ3_K:
        return {108};
      case EncodingKind::kQ6_K:
        return {208};
      default:
        return {};
    }
  }
  bool valid = false;
  std::vector<std::vector<std::byte>> parts;
  std::vector<float> values;  // [rows, columns]
  WeightView view;
};

// Everything that a kernel of its own or the generic path takes.
inline std::vector<Encoding> test_encodings() {
  std::vector<Encoding> out;
  for (const EncodingKind kind :
       {EncodingKind::kF32, EncodingKind::kF16, EncodingKind::kBF16, EncodingKind::kQ8_0,
        EncodingKind::kQ4_0, EncodingKind::kMXFP4, EncodingKind::kI8})
    out.push_back(Encoding::plain(kind));
  for (const int bits : {4, 8})
    for (const int64_t block : {8, 32, 64}) out.push_back(Encoding::int_blocks(bits, block));
  for (const int bits : {1, 2, 3, 4, 6, 8})
    for (const int64_t group : {1, 16}) out.push_back(Encoding::lut(bits, group));
  return out;
}

}  // namespace pome::kernels
