// Every way in which the weights of a constant can be stored, with one traits table.
//
// An encoding describes a matrix [rows, columns] (a tensor of higher rank is seen as rows = product
// of all but the last dimension). Whole rows can always be decoded on their own. The stored bytes
// are one or more *parts*:
//
//   plain and block types    part 0: rows, each a whole number of blocks
//   kInt  (int4, int8)       part 0: codes, two's complement, `bits` wide, one bit stream over the
//   whole matrix
//                            part 1: f16 scales [rows, columns / block]      value = scale * code
//   kLut  (palettes)         part 0: indices, `bits` wide, one bit stream over the whole matrix
//                            part 1: f16 tables [rows / group, 2^bits]       value = table[row /
//                            group][index]
//   kVectorLut               part 0: indices [rows / vector, columns], as kLut's
//                            part 1: f16 tables [rows / group, 2^bits, vector]
//                            value = table[row / group][index of the `vector` rows][row % vector]
//   kSparse* (every row      part 0: mask, one bit per element of the matrix
//   has `keep` values, the   part 1: the values at its ones in their order: f16, or codes or
//   others are zero)                 indices as kInt and kLut have them, one bit stream
//                            part 2: scales of kInt, tables of kLut (not of kSparseF16)
//
// Sources: GGUF block layouts: ggml's specification as tabulated in docs/encodings.md; Core ML's
// constexpr ops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace pome {

enum class EncodingKind : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kI16,
  kI32,
  kI64,
  kF8E4M3,
  kF8E5M2,  // plain
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,  // 32-blocks
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,  // 256-super-blocks
  kIQ2_XXS,
  kIQ2_XS,
  kIQ2_S,
  kIQ3_XXS,
  kIQ3_S,
  kIQ1_S,
  kIQ1_M,
  kIQ4_NL,
  kIQ4_XS,
  kTQ1_0,
  kTQ2_0,
  kMXFP4,
  kNVFP4,
  kQ1_0,
  kQ2_0,
  kInt,
  kLut,
  kVectorLut,
  kSparseF16,
  kSparseInt,
  kSparseLut,
};
inline constexpr int kEncodingKindCount = static_cast<int>(EncodingKind::kSparseLut) + 1;

struct EncodingTraits {
  EncodingKind kind;
  std::string_view name;  // "q4_k", "f16"
  int gguf_type;          // ggml type id, -1 when GGUF has none
  int block_elements;     // 1 for plain types; 0 from kInt on (see Encoding)
  int block_bytes;
  // Decodes `blocks` consecutive blocks into block_elements * blocks floats. Null from kInt on.
  void (*decode)(const std::byte* in, int64_t blocks, float* out);
};
const EncodingTraits& traits(EncodingKind kind);
std::optional<EncodingKind> encoding_from_gguf_type(int64_t type);
std::optional<EncodingKind> encoding_from_dtype(DType dtype);  // plain ones only

struct Encoding {
  EncodingKind kind = EncodingKind::kF32;
  int bits = 0;        // kInt: 4 or 8; kLut: 1, 2, 3, 4, 6, 8; the same of their relatives
  int64_t block = 0;   // kInt: columns that share a scale
  int64_t group = 0;   // kLut: rows that share a table
  int64_t keep = 0;    // kSparse*: values of a row that are stored
  int64_t vector = 0;  // kVectorLut: rows that share an index; divides the group

  friend bool operator==(const Encoding&, const Encoding&) = default;

  static Encoding plain(EncodingKind kind) { return {kind, 0, 0, 0}; }
  static Encoding int_blocks(int bits, int64_t block) {
    return {EncodingKind::kInt, bits, block, 0};
  }
  static Encoding lut(int bits, int64_t group) { return {EncodingKind::kLut, bits, 0, group}; }
  static Encoding vector_lut(int bits, int64_t vector, int64_t group) {
    return {EncodingKind::kVectorLut, bits, 0, group, 0, vector};
  }
  // Of kF16, kInt or kLut with so many values per row.
  static Encoding sparse(const Encoding& dense, int64_t keep);
  bool is_sparse() const { return kind >= EncodingKind::kSparseF16; }
  // What a sparse one stores where it stores something; others: itself.
  Encoding dense() const;
};
// "q4_k", "int4/32", "lut4/16", "lut4x2/16", "sparse-int4/32:128" (128 values per row)
std::string to_string(const Encoding& encoding);

// Sizes of the parts of a [rows, columns] matrix. Refuses (kRange) a shape that the encoding does
// not divide.
inline constexpr size_t kMostParts = 3;
struct EncodedLayout {
  int64_t rows = 0, columns = 0;
  std::vector<uint64_t> part_bytes;
  uint64_t total_bytes() const;
};
Result<EncodedLayout> encoded_layout(const Encoding& encoding, int64_t rows, int64_t columns);
// Smallest number of rows such that every multiple of it starts on a whole byte of every part and
// on a whole group.
int64_t row_granularity(const Encoding& encoding, int64_t columns);

// Decodes rows [0, rows) of a tile whose first row is a multiple of row_granularity(). `parts` hold
// that tile only.
Status decode_rows(const Encoding& encoding, int64_t rows, int64_t columns,
                   std::span<const std::span<const std::byte>> parts, float* out);

}  // namespace pome
