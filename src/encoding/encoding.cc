#include "encoding/encoding.h"

#include <array>
#include <numeric>

#include "base/checked.h"
#include "encoding/blocks.h"
#include "encoding/code_streams.h"
#include "encoding/decoders.h"

namespace pome {
namespace {

template <typename Block>
constexpr EncodingTraits of_blocks(EncodingKind kind, std::string_view name, int gguf_type,
                                   BlockDecoder* decode) {
  return {kind, name, gguf_type, Block::kElements, static_cast<int>(sizeof(Block)), decode};
}

using K = EncodingKind;
constexpr std::array<EncodingTraits, kEncodingKindCount> kTraits = {{
    {K::kF32, "f32", 0, 1, 4, decode_f32},
    {K::kF16, "f16", 1, 1, 2, decode_f16},
    {K::kBF16, "bf16", 30, 1, 2, decode_bf16},
    {K::kF64, "f64", 28, 1, 8, decode_f64},
    {K::kI8, "i8", 24, 1, 1, decode_i8},
    {K::kI16, "i16", 25, 1, 2, decode_i16},
    {K::kI32, "i32", 26, 1, 4, decode_i32},
    {K::kI64, "i64", 27, 1, 8, decode_i64},
    {K::kF8E4M3, "f8e4m3", -1, 1, 1, decode_f8e4m3},
    {K::kF8E5M2, "f8e5m2", -1, 1, 1, decode_f8e5m2},
    of_blocks<BlockQ4_0>(K::kQ4_0, "q4_0", 2, decode_q4_0),
    of_blocks<BlockQ4_1>(K::kQ4_1, "q4_1", 3, decode_q4_1),
    of_blocks<BlockQ5_0>(K::kQ5_0, "q5_0", 6, decode_q5_0),
    of_blocks<BlockQ5_1>(K::kQ5_1, "q5_1", 7, decode_q5_1),
    of_blocks<BlockQ8_0>(K::kQ8_0, "q8_0", 8, decode_q8_0),
    of_blocks<BlockQ2_K>(K::kQ2_K, "q2_k", 10, decode_q2_k),
    of_blocks<BlockQ3_K>(K::kQ3_K, "q3_k", 11, decode_q3_k),
    of_blocks<BlockQ4_K>(K::kQ4_K, "q4_k", 12, decode_q4_k),
    of_blocks<BlockQ5_K>(K::kQ5_K, "q5_k", 13, decode_q5_k),
    of_blocks<BlockQ6_K>(K::kQ6_K, "q6_k", 14, decode_q6_k),
    of_blocks<BlockIQ2_XXS>(K::kIQ2_XXS, "iq2_xxs", 16, decode_iq2_xxs),
    of_blocks<BlockIQ2_XS>(K::kIQ2_XS, "iq2_xs", 17, decode_iq2_xs),
    of_blocks<BlockIQ2_S>(K::kIQ2_S, "iq2_s", 22, decode_iq2_s),
    of_blocks<BlockIQ3_XXS>(K::kIQ3_XXS, "iq3_xxs", 18, decode_iq3_xxs),
    of_blocks<BlockIQ3_S>(K::kIQ3_S, "iq3_s", 21, decode_iq3_s),
    of_blocks<BlockIQ1_S>(K::kIQ1_S, "iq1_s", 19, decode_iq1_s),
    of_blocks<BlockIQ1_M>(K::kIQ1_M, "iq1_m", 29, decode_iq1_m),
    of_blocks<BlockIQ4_NL>(K::kIQ4_NL, "iq4_nl", 20, decode_iq4_nl),
    of_blocks<BlockIQ4_XS>(K::kIQ4_XS, "iq4_xs", 23, decode_iq4_xs),
    of_blocks<BlockTQ1_0>(K::kTQ1_0, "tq1_0", 34, decode_tq1_0),
    of_blocks<BlockTQ2_0>(K::kTQ2_0, "tq2_0", 35, decode_tq2_0),
    of_blocks<BlockMXFP4>(K::kMXFP4, "mxfp4", 39, decode_mxfp4),
    of_blocks<BlockNVFP4>(K::kNVFP4, "nvfp4", 40, decode_nvfp4),
    of_blocks<BlockQ1_0>(K::kQ1_0, "q1_0", 41, decode_q1_0),
    of_blocks<BlockQ2_0>(K::kQ2_0, "q2_0", 42, decode_q2_0),
    {K::kInt, "int", -1, 0, 0, nullptr},
    {K::kLut, "lut", -1, 0, 0, nullptr},
    {K::kVectorLut, "vector-lut", -1, 0, 0, nullptr},
    {K::kSparseF16, "sparse-f16", -1, 0, 0, nullptr},
    {K::kSparseInt, "sparse-int", -1, 0, 0, nullptr},
    {K::kSparseLut, "sparse-lut", -1, 0, 0, nullptr},
}};

constexpr bool table_is_indexed_by_kind() {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    if (static_cast<size_t>(kTraits[i].kind) != i) return false;
  }
  return true;
}
static_assert(table_is_indexed_by_kind());

bool valid_int(const Encoding& encoding) {
  return (encoding.bits == 4 || encoding.bits == 8) && encoding.block > 0;
}
bool valid_lut(const Encoding& encoding) {
  const int bits = encoding.bits;
  return bits >= 1 && bits <= 8 && bits != 5 && bits != 7 && encoding.group > 0;
}

std::string shape_text(int64_t rows, int64_t columns) {
  return "[" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
}
Status does_not_divide(const Encoding& encoding, int64_t rows, int64_t columns,
                       std::string_view rule) {
  return bad_input(Refusal::kRange, "a matrix " + shape_text(rows, columns) +
                                        " cannot be stored as " + to_string(encoding) + ": " +
                                        std::string(rule));
}

// Bytes of `count` units of `bits`, rounded up.
std::optional<uint64_t> stream_bytes(uint64_t count, uint64_t bits) {
  const auto total = checked_mul(count, bits);
  if (!total) return std::nullopt;
  return *total / 8 + (*total % 8 != 0 ? 1 : 0);
}

// Bits of one stored value: a code, an index, or binary16.
int value_bits(const Encoding& encoding) {
  return encoding.kind == EncodingKind::kSparseF16 ? 16 : encoding.bits;
}

// The layout's part sizes; an empty list when one does not fit 64 bits. The shape divides.
std::vector<uint64_t> part_sizes(const Encoding& encoding, uint64_t rows, uint64_t columns) {
  const auto count = checked_mul(rows, columns);
  if (!count) return {};
  if (encoding.is_sparse()) {
    const auto kept = checked_mul(rows, static_cast<uint64_t>(encoding.keep));
    const auto mask = stream_bytes(*count, 1);
    const auto values =
        kept ? stream_bytes(*kept, static_cast<uint64_t>(value_bits(encoding))) : std::nullopt;
    if (!mask || !values) return {};
    std::vector<uint64_t> out = {*mask, *values};
    if (encoding.kind == EncodingKind::kSparseF16) return out;
    const std::vector<uint64_t> dense = part_sizes(encoding.dense(), rows, columns);
    if (dense.empty()) return {};
    out.push_back(dense[1]);
    return out;
  }
  if (encoding.kind == EncodingKind::kVectorLut) {
    const auto vector = static_cast<uint64_t>(encoding.vector);
    const auto codes = stream_bytes(*count / vector, static_cast<uint64_t>(encoding.bits));
    const auto entries =
        checked_mul(rows / static_cast<uint64_t>(encoding.group), uint64_t{1} << encoding.bits);
    const auto tables = entries ? checked_mul(*entries, 2 * vector) : std::nullopt;
    if (!codes || !tables) return {};
    return {*codes, *tables};
  }
  if (encoding.kind == EncodingKind::kInt) {
    const auto codes = stream_bytes(*count, static_cast<uint64_t>(encoding.bits));
    const auto scales = stream_bytes(*count / static_cast<uint64_t>(encoding.block), 16);
    if (!codes || !scales) return {};
    return {*codes, *scales};
  }
  if (encoding.kind == EncodingKind::kLut) {
    const auto codes = stream_bytes(*count, static_cast<uint64_t>(encoding.bits));
    const auto tables =
        stream_bytes(rows / static_cast<uint64_t>(encoding.group), uint64_t{16} << encoding.bits);
    if (!codes || !tables) return {};
    return {*codes, *tables};
  }
  const EncodingTraits& type = traits(encoding.kind);
  const auto bytes = checked_mul(*count / static_cast<uint64_t>(type.block_elements),
                                 static_cast<uint64_t>(type.block_bytes));
  if (!bytes) return {};
  return {*bytes};
}

}  // namespace

const EncodingTraits& traits(EncodingKind kind) {
  const size_t index = static_cast<size_t>(kind);
  POME_CHECK(index < kTraits.size());
  return kTraits[index];
}

std::optional<EncodingKind> encoding_from_gguf_type(int64_t type) {
  if (type < 0) return std::nullopt;
  for (const EncodingTraits& entry : kTraits) {
    if (entry.gguf_type == type) return entry.kind;
  }
  return std::nullopt;
}

std::optional<EncodingKind> encoding_from_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return EncodingKind::kF32;
    case DType::kF16:
      return EncodingKind::kF16;
    case DType::kBF16:
      return EncodingKind::kBF16;
    case DType::kF64:
      return EncodingKind::kF64;
    case DType::kI8:
      return EncodingKind::kI8;
    case DType::kI16:
      return EncodingKind::kI16;
    case DType::kI32:
      return EncodingKind::kI32;
    case DType::kI64:
      return EncodingKind::kI64;
    case DType::kF8E4M3:
      return EncodingKind::kF8E4M3;
    case DType::kF8E5M2:
      return EncodingKind::kF8E5M2;
    default:
      return std::nullopt;
  }
}

std::string to_string(const Encoding& encoding) {
  std::string text(traits(encoding.kind).name);
  const EncodingKind kind = encoding.kind;
  if (kind == EncodingKind::kVectorLut) text = traits(EncodingKind::kLut).name;
  if (kind >= EncodingKind::kInt && kind != EncodingKind::kSparseF16) {
    text += std::to_string(encoding.bits);
    if (kind == EncodingKind::kVectorLut) text += "x" + std::to_string(encoding.vector);
    const bool integers = kind == EncodingKind::kInt || kind == EncodingKind::kSparseInt;
    text += "/" + std::to_string(integers ? encoding.block : encoding.group);
  }
  if (encoding.is_sparse()) text += ":" + std::to_string(encoding.keep);
  return text;
}

Encoding Encoding::sparse(const Encoding& dense, int64_t keep) {
  Encoding out = dense;
  POME_CHECK(dense.kind == EncodingKind::kF16 || dense.kind == EncodingKind::kInt ||
             dense.kind == EncodingKind::kLut);
  out.kind = dense.kind == EncodingKind::kF16   ? EncodingKind::kSparseF16
             : dense.kind == EncodingKind::kInt ? EncodingKind::kSparseInt
                                                : EncodingKind::kSparseLut;
  out.keep = keep;
  return out;
}

Encoding Encoding::dense() const {
  if (!is_sparse()) return *this;
  Encoding out = *this;
  out.kind = kind == EncodingKind::kSparseF16   ? EncodingKind::kF16
             : kind == EncodingKind::kSparseInt ? EncodingKind::kInt
                                                : EncodingKind::kLut;
  out.keep = 0;
  return out;
}

uint64_t EncodedLayout::total_bytes() const {
  return std::accumulate(part_bytes.begin(), part_bytes.end(), uint64_t{0});
}

Result<EncodedLayout> encoded_layout(const Encoding& encoding, int64_t rows, int64_t columns) {
  if (rows < 0 || columns < 0) {
    return does_not_divide(encoding, rows, columns, "a dimension is negative");
  }
  if (encoding.is_sparse()) {
    POME_RETURN_IF_ERROR(encoded_layout(encoding.dense(), rows, columns).status());
    if (encoding.keep < 0 || encoding.keep > columns)
      return does_not_divide(encoding, rows, columns, "rows do not hold so many values");
  } else if (encoding.kind == EncodingKind::kVectorLut) {
    if (!valid_lut(encoding) || encoding.vector < 1 || encoding.group % encoding.vector != 0)
      return does_not_divide(encoding, rows, columns,
                             "indices have 1, 2, 3, 4, 6 or 8 bits, and groups are whole vectors");
    if (rows % encoding.group != 0)
      return does_not_divide(encoding, rows, columns, "rows must be a multiple of the group");
  } else if (encoding.kind == EncodingKind::kInt) {
    if (!valid_int(encoding)) {
      return does_not_divide(encoding, rows, columns, "codes have 4 or 8 bits and a block size");
    }
    if (columns % encoding.block != 0) {
      return does_not_divide(encoding, rows, columns, "columns must be a multiple of the block");
    }
  } else if (encoding.kind == EncodingKind::kLut) {
    if (!valid_lut(encoding)) {
      return does_not_divide(encoding, rows, columns,
                             "indices have 1, 2, 3, 4, 6 or 8 bits and a group size");
    }
    if (rows % encoding.group != 0) {
      return does_not_divide(encoding, rows, columns, "rows must be a multiple of the group");
    }
  } else if (columns % traits(encoding.kind).block_elements != 0) {
    return does_not_divide(
        encoding, rows, columns,
        "columns must be a multiple of " + std::to_string(traits(encoding.kind).block_elements));
  }
  EncodedLayout layout{
      rows, columns,
      part_sizes(encoding, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns))};
  uint64_t total = 0;
  bool fits = !layout.part_bytes.empty();
  for (const uint64_t bytes : layout.part_bytes) {
    const auto sum = checked_add(total, bytes);
    fits = fits && sum.has_value();
    total = sum.value_or(0);
  }
  if (!fits) {
    return bad_input(Refusal::kOverflow, "the size of a matrix " + shape_text(rows, columns) +
                                             " stored as " + to_string(encoding) +
                                             " does not fit 64 bits");
  }
  return layout;
}

int64_t row_granularity(const Encoding& encoding, int64_t columns) {
  POME_CHECK(columns >= 0);
  if (encoding.kind < EncodingKind::kInt) return 1;
  const Encoding dense = encoding.dense();
  POME_CHECK(dense.kind == EncodingKind::kF16 ||
             (dense.kind == EncodingKind::kInt ? valid_int(dense) : valid_lut(dense)));
  const auto rows_of_bytes = [](int64_t values, int64_t bits) {
    return 8 / std::gcd<int64_t>(8, values % 8 * bits);
  };
  int64_t for_bytes = rows_of_bytes(columns, encoding.is_sparse() ? 1 : encoding.bits);
  if (encoding.is_sparse())
    for_bytes = std::max(for_bytes, rows_of_bytes(encoding.keep, value_bits(encoding)));
  // Both are powers of two; a vector of rows has one row of indices.
  if (encoding.kind == EncodingKind::kVectorLut)
    for_bytes = checked_mul(for_bytes, encoding.vector).value_or(for_bytes);
  if (dense.kind == EncodingKind::kInt || dense.kind == EncodingKind::kF16) return for_bytes;
  const int64_t factor = for_bytes / std::gcd(for_bytes, encoding.group);
  // A group so large that the product overflows has one tile in any matrix.
  return checked_mul(encoding.group, factor).value_or(std::numeric_limits<int64_t>::max());
}

Status decode_rows(const Encoding& encoding, int64_t rows, int64_t columns,
                   std::span<const std::span<const std::byte>> parts, float* out) {
  POME_ASSIGN_OR_RETURN(const EncodedLayout layout, encoded_layout(encoding, rows, columns));
  if (parts.size() != layout.part_bytes.size()) {
    return bad_input(Refusal::kRange, to_string(encoding) + " has " +
                                          std::to_string(layout.part_bytes.size()) +
                                          " parts, not " + std::to_string(parts.size()));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].size() != layout.part_bytes[i]) {
      return bad_input(Refusal::kRange, "part " + std::to_string(i) + " of a matrix " +
                                            shape_text(rows, columns) + " stored as " +
                                            to_string(encoding) + " has " +
                                            std::to_string(layout.part_bytes[i]) + " bytes, not " +
                                            std::to_string(parts[i].size()));
    }
  }
  const int64_t count = rows * columns;
  if (encoding.is_sparse() || encoding.kind == EncodingKind::kVectorLut) {
    const std::byte* data[kMostParts] = {};
    for (size_t i = 0; i < parts.size(); ++i) data[i] = parts[i].data();
    for (int64_t row = 0; row < rows; ++row, out += columns) {
      if (!encoding.is_sparse()) {
        decode_vector_row(encoding, row, columns, data, out);
      } else if (!decode_sparse_row(encoding, row, columns, data, out)) {
        return bad_input(Refusal::kRange, "row " + std::to_string(row) + " of the mask of " +
                                              to_string(encoding) + " does not have " +
                                              std::to_string(encoding.keep) + " ones");
      }
    }
  } else if (encoding.kind == EncodingKind::kInt) {
    decode_int_stream(parts[0].data(), encoding.bits, count, encoding.block, parts[1].data(), out);
  } else if (encoding.kind == EncodingKind::kLut) {
    // The product may overflow only where there are no rows, and then it is not used.
    const int64_t per_table = checked_mul(encoding.group, columns).value_or(0);
    decode_lut_stream(parts[0].data(), encoding.bits, count, per_table, parts[1].data(), out);
  } else {
    const EncodingTraits& type = traits(encoding.kind);
    type.decode(parts[0].data(), count / type.block_elements, out);
  }
  return {};
}

}  // namespace pome
