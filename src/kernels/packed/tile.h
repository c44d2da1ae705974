// Inside a tile: what packing, the kernels and the tests share. The layout is drawn in packed.h.
#pragma once

#include <algorithm>

#include "kernels/packed/products.h"

namespace pome::kernels {

// The bytes that the codes of a tile stand for: value + offset. Without a table the identity.
void table_of(const PackedView& packed, const std::byte* tile, int level, uint8_t (&table)[16]);
// How many levels of codes a product takes. Tables of narrow matrices have a second one, and they
// alone meet fine activations; other products do without it.
constexpr int code_levels(int bits, PackedScales scales, bool table, bool fine) {
  return bits == 16 || (table && scales == PackedScales::kRow && fine) ? 2 : 1;
}
// From the planes of one level of a block to those of the next.
inline constexpr int64_t kLevelBytes = 64 * 8;
// What a level's products count for: 1, 1 / 256.
constexpr float level_weight(int level) { return level == 0 ? 1.0f : 1.0f / 256; }
// The codes of one block and row, whatever the planes.
void row_codes(int bits, const std::byte* block, int64_t lane, uint8_t (&codes)[kBlockColumns]);

// Least and largest of code - offset.
struct CodeRange {
  float low, high;
};
inline CodeRange code_range(const PackedFormat& format) {
  switch (format.table) {
    case PackedTable::kNone:
      break;
    case PackedTable::kFp4:
      return {-12, 12};
    default:
      return {-127, 127};
  }
  return {static_cast<float>(-format.offset),
          static_cast<float>((1 << std::min(format.bits, 8)) - 1 - format.offset)};
}
// Bits of what is multiplied: the codes (of a level), or the bytes that the table gives for them.
// Tables of a scale that is an exponent hold fp4.
constexpr int code_width(int bits, PackedScales scales, bool table) {
  if (!table) return bits == 16 ? 8 : bits;
  return scales == PackedScales::kExponent ? 5 : 8;
}

// What a code is less: PackedFormat::offset, known where the code is compiled.
constexpr int code_offset(int bits, PackedScales scales, bool table) {
  if (table) return scales == PackedScales::kExponent ? 12 : 128;
  const bool bias = scales == PackedScales::kHalfBias || scales == PackedScales::kSuperBias ||
                    scales == PackedScales::kSuperBias16;
  return bias ? 0 : 1 << (code_width(bits, scales, table) - 1);
}

// Calls body.template operator()<bits, scales, table>() for the format: every combination that
// packed_format() gives. Kernels instantiate themselves through it.
template <typename Body>
void with_format(const PackedFormat& format, const Body& body) {
  using S = PackedScales;
  const auto key = [](int bits, S scales, bool table) {
    return bits * 100 + static_cast<int>(scales) * 2 + (table ? 1 : 0);
  };
  switch (key(format.bits, format.scales, format.table != PackedTable::kNone)) {
#define POME_FORMAT(bits, scales, table)                            \
  case bits * 100 + static_cast<int>(scales) * 2 + (table ? 1 : 0): \
    return body.template operator()<bits, scales, table>();
    POME_FORMAT(4, S::kHalf, false)         // q4_0, int4
    POME_FORMAT(4, S::kHalfBias, false)     // q4_1
    POME_FORMAT(5, S::kHalf, false)         // q5_0
    POME_FORMAT(5, S::kHalfBias, false)     // q5_1
    POME_FORMAT(8, S::kHalf, false)         // q8_0, int8 in blocks, palettes of many entries
    POME_FORMAT(2, S::kSuperBias16, false)  // q2_k
    POME_FORMAT(3, S::kSuper16, false)      // q3_k
    POME_FORMAT(4, S::kSuperBias, false)    // q4_k
    POME_FORMAT(5, S::kSuperBias, false)    // q5_k
    POME_FORMAT(6, S::kSuper16, false)      // q6_k
    POME_FORMAT(4, S::kHalf, true)          // iq4_nl
    POME_FORMAT(4, S::kSuper, true)         // iq4_xs
    POME_FORMAT(4, S::kExponent, true)      // mxfp4
    POME_FORMAT(4, S::kRow, false)          // int4, a scale per row
    POME_FORMAT(8, S::kRow, false)          // int8
    POME_FORMAT(16, S::kHalf, false)        // palettes of many entries in narrow matrices
    POME_FORMAT(2, S::kRow, true)           // lut1, lut2
    POME_FORMAT(3, S::kRow, true)           // lut3
    POME_FORMAT(4, S::kRow, true)           // lut4
#undef POME_FORMAT
    default:
      return;
  }
}

// Walks a product of few tokens: times.template operator()<fine, M>(tile, m0) for every tile of
// `args`, M tokens from m0 on at a time: kMost (2 or 4) of them, at the end half as many, then one.
template <int kMost, typename Times>
void for_few_tokens(const ProductArgs& args, const Times& times) {
  const auto walk = [&]<bool kFine>() {
    for (int64_t tile = args.tile; tile < args.tile + args.tiles; ++tile) {
      int64_t m = 0;
      const auto take = [&]<int M>() {
        for (; m + M <= args.x.m; m += M) times.template operator()<kFine, M>(tile, m);
      };
      if constexpr (kMost == 4) take.template operator()<4>();
      take.template operator()<2>();
      take.template operator()<1>();
    }
  };
  if (args.x.bits == ActivationBits::kFine) {
    walk.template operator()<true>();
  } else {
    walk.template operator()<false>();
  }
}

}  // namespace pome::kernels
