#include "kernels/attention/kv_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/half.h"

namespace pome::kernels {

namespace {

constexpr std::string_view kNames[] = {"f32", "f16", "q8", "q4"};
constexpr float kLargestHalf = 65504.0f;

int64_t padded(int64_t dim) { return (dim + 15) / 16 * 16; }

// Bits of the nearest bfloat16 that is not smaller; x is finite and not negative.
uint32_t bf16_not_below(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return (bits + 0xFFFFu) >> 16;
}
float from_bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

struct Group {
  float scale = 0, offset = 0;
  uint32_t word() const {
    return (std::bit_cast<uint32_t>(scale) & 0xFFFF0000u) | std::bit_cast<uint32_t>(offset) >> 16;
  }
};

// `steps` from the lowest value to the highest: 255 of q8 with the offset at the low end, 2 of q4
// with the offset in the middle.
Group fit(float low, float high, float steps) {
  const float middle = steps == 2 ? low + (high - low) / 2 : low;
  Group out;
  // Toward zero when cut: the range that is left on either side is measured from what it became.
  out.offset = from_bf16(std::bit_cast<uint32_t>(middle) >> 16);
  if (steps != 2 && out.offset > low)
    out.offset = from_bf16((std::bit_cast<uint32_t>(middle) >> 16) + 1);  // a negative one: below
  const float reach =
      steps == 2 ? std::max(high - out.offset, out.offset - low) : (high - out.offset) / steps;
  if (reach > 0 && reach < 3e38f) out.scale = from_bf16(bf16_not_below(reach));
  return out;
}

uint8_t nearest_nf4(float x) {
  uint8_t code = 0;
  for (size_t i = 0; i < 15; ++i) code += x > (kNf4[i] + kNf4[i + 1]) / 2;
  return code;
}

void pack_groups(KvKind kind, const float* x, int64_t dim, std::byte* row) {
  const int64_t groups = kv_groups(dim);
  auto* codes = reinterpret_cast<uint8_t*>(row) + 4 * groups;
  const bool bytes = kind == KvKind::kQ8;
  std::memset(codes, 0, static_cast<size_t>(bytes ? padded(dim) : padded(dim) / 2));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * kKvGroup, end = std::min(dim, begin + kKvGroup);
    const auto [low, high] = std::minmax_element(x + begin, x + end);
    const Group group = fit(*low, *high, bytes ? 255.0f : 2.0f);
    const uint32_t word = group.word();
    std::memcpy(row + 4 * g, &word, 4);
    const float inverse = group.scale > 0 ? 1.0f / group.scale : 0.0f;
    for (int64_t d = begin; d < end; ++d) {
      const float at = (x[d] - group.offset) * inverse;
      if (bytes)
        codes[d] = static_cast<uint8_t>(std::clamp(at + 0.5f, 0.0f, 255.0f));
      else
        codes[d / 2] |= static_cast<uint8_t>(nearest_nf4(at) << (d % 2 * 4));
    }
  }
}

}  // namespace

std::string_view to_string(KvKind kind) { return kNames[static_cast<size_t>(kind)]; }

std::optional<KvKind> parse_kv_kind(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (kNames[i] == name) return static_cast<KvKind>(i);
  return std::nullopt;
}

int64_t kv_row_bytes(KvKind kind, int64_t dim) {
  switch (kind) {
    case KvKind::kF32:
      return 4 * dim;
    case KvKind::kF16:
      return 2 * dim;
    case KvKind::kQ8:
      return 4 * kv_groups(dim) + padded(dim);
    case KvKind::kQ4:
      return 4 * kv_groups(dim) + padded(dim) / 2;
  }
  return 0;
}

void kv_pack_row(KvKind kind, const float* x, int64_t dim, std::byte* row) {
  const auto size = static_cast<size_t>(dim);
  if (kind == KvKind::kF32) {
    std::memcpy(row, x, size * sizeof(float));
  } else if (kind == KvKind::kF16) {
    float inside[kKvGroup];
    for (size_t d = 0; d < size; d += kKvGroup) {
      const size_t n = std::min(size - d, static_cast<size_t>(kKvGroup));
      for (size_t i = 0; i < n; ++i)
        inside[i] = x[d + i] > kLargestHalf    ? kLargestHalf
                    : x[d + i] < -kLargestHalf ? -kLargestHalf
                                               : x[d + i];
      f32_to_f16({inside, n}, {reinterpret_cast<uint16_t*>(row) + d, n});
    }
  } else {
    pack_groups(kind, x, dim, row);
  }
}

void kv_unpack_row(KvKind kind, const std::byte* row, int64_t dim, int64_t width, float* x) {
  const auto size = static_cast<size_t>(dim);
  if (kind == KvKind::kF32) {
    std::memcpy(x, row, size * sizeof(float));
    return;
  }
  if (kind == KvKind::kF16) {
    f16_to_f32({reinterpret_cast<const uint16_t*>(row), size}, {x, size});
    return;
  }
  const auto* codes = reinterpret_cast<const uint8_t*>(row) + 4 * kv_groups(width);
  for (int64_t d = 0; d < dim; ++d) {
    uint32_t word;
    std::memcpy(&word, row + d / kKvGroup * 4, 4);
    const float scale = std::bit_cast<float>(word & 0xFFFF0000u), offset = from_bf16(word);
    const float level =
        kind == KvKind::kQ8 ? static_cast<float>(codes[d]) : kNf4[codes[d / 2] >> (d % 2 * 4) & 15];
    x[d] = offset + scale * level;
  }
}

}  // namespace pome::kernels
