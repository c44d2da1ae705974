// How one row of a KV cache (one token of one head) is stored.
//
//   f32   dim floats
//   f16   dim binary16; what is beyond 65504 is stored as that
//   q8    ceil(dim / 64) parameters, then one byte a value       x = offset + scale * code
//   q4    ceil(dim / 64) parameters, then half a byte a value    x = offset + scale * nf4[code]
//
// A parameter is two bfloat16 in one little-endian word: the scale above, the offset below. Codes
// are padded to 16 values; q4 has the earlier value in the low half of a byte. A group of 64 values
// along the head's dimension has its own parameters: for q8 the smallest value and 1/255 of the
// range, for q4 the middle of the range and half of it, over the 16 levels of the NormalFloat type
// (Dettmers et al., arXiv 2305.14314, appendix E). Scales are rounded up, so that no value is cut.
// Error of a value: q8 half a scale (the range / 509 with the rounding of parameters), q4 at most
// 0.16 of half the range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "kernels/isa.h"

namespace pome::kernels {

enum class KvKind : uint8_t { kF32, kF16, kQ8, kQ4 };
std::string_view to_string(KvKind kind);  // "f32", "f16", "q8", "q4"
std::optional<KvKind> parse_kv_kind(std::string_view name);

inline constexpr int64_t kKvGroup = 64;
int64_t kv_row_bytes(KvKind kind, int64_t dim);  // a multiple of 4 but for odd f16 rows
inline int64_t kv_groups(int64_t dim) { return (dim + kKvGroup - 1) / kKvGroup; }
inline constexpr float kNf4[16] = {-1.0f,        -0.6961928f,  -0.52507305f, -0.3949175f,
                                   -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
                                   0.0795803f,   0.1609302f,   0.2461123f,   0.33791524f,
                                   0.44070983f,  0.562617f,    0.72295684f,  1.0f};

// `x` [dim] into a row, and back. NaN stays NaN in f32 and f16 only.
void kv_pack_row(KvKind kind, const float* x, int64_t dim, std::byte* row);
// The same at any speed: the definition of unpacking. Gives the first `dim` of a row's `width`
// values.
void kv_unpack_row(KvKind kind, const std::byte* row, int64_t dim, int64_t width, float* x);

// Rows of one head, one behind the other. A row holds `width` values, of which the first `dim` are
// meant: keys and values may lie in one row.
struct KvRows {
  KvKind kind = KvKind::kF32;
  const std::byte* data = nullptr;
  int64_t row_bytes = 0, dim = 0, width = 0;
  KvRows from(int64_t row) const { return {kind, data + row * row_bytes, row_bytes, dim, width}; }
};

}  // namespace pome::kernels
