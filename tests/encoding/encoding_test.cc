#include "encoding/encoding.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "block_bytes.h"
#include "tensor/half.h"

namespace pome {
namespace {

using testing::Bytes;

std::vector<std::span<const std::byte>> spans(const std::vector<Bytes>& parts) {
  return {parts.begin(), parts.end()};
}

// One code at a time, straight from the definition of the bit stream.
int code_at(const Bytes& stream, int bits, int64_t index) {
  int code = 0;
  for (int j = 0; j < bits; ++j) {
    const int64_t bit = index * bits + j;
    const int byte = std::to_integer<int>(stream[static_cast<size_t>(bit / 8)]);
    code |= (byte >> (bit % 8) & 1) << j;
  }
  return code;
}

uint16_t half_at(const Bytes& bytes, int64_t index) {
  uint16_t value;
  std::memcpy(&value, bytes.data() + 2 * index, sizeof value);
  return value;
}

// Value (row, column) by the definition in the header.
float reference(const Encoding& encoding, const std::vector<Bytes>& parts, int64_t columns,
                int64_t row, int64_t column) {
  const int code = code_at(parts[0], encoding.bits, row * columns + column);
  if (encoding.kind == EncodingKind::kInt) {
    const int half_range = 1 << (encoding.bits - 1);
    const int value = code >= half_range ? code - 2 * half_range : code;
    const int64_t scale = row * (columns / encoding.block) + column / encoding.block;
    return f16_to_f32(half_at(parts[1], scale)) * static_cast<float>(value);
  }
  const int64_t table = row / encoding.group;
  return f16_to_f32(half_at(parts[1], (table << encoding.bits) + code));
}

// Random parts whose binary16 values are finite.
std::vector<Bytes> random_parts(const EncodedLayout& layout, std::mt19937& random) {
  std::vector<Bytes> parts;
  for (const uint64_t size : layout.part_bytes) {
    Bytes part(size);
    for (std::byte& byte : part) byte = static_cast<std::byte>(random() & 0xFF);
    parts.push_back(std::move(part));
  }
  for (size_t i = 1; i < parts.at(1).size(); i += 2) parts[1][i] &= std::byte{0xBB};
  return parts;
}

std::vector<Encoding> matrix_encodings(int64_t block, int64_t group) {
  std::vector<Encoding> all = {Encoding::int_blocks(4, block), Encoding::int_blocks(8, block)};
  for (const int bits : {1, 2, 3, 4, 6, 8}) all.push_back(Encoding::lut(bits, group));
  return all;
}

TEST(Encoding, TraitsAreConsistent) {
  std::set<std::string_view> names;
  for (int k = 0; k < kEncodingKindCount; ++k) {
    const EncodingKind kind = static_cast<EncodingKind>(k);
    const EncodingTraits& type = traits(kind);
    EXPECT_EQ(type.kind, kind);
    EXPECT_TRUE(names.insert(type.name).second) << type.name;
    if (kind >= EncodingKind::kInt) {
      EXPECT_EQ(type.gguf_type, -1);
      EXPECT_EQ(type.decode, nullptr);
    } else {
      if (kind == EncodingKind::kF8E4M3 || kind == EncodingKind::kF8E5M2) {
        EXPECT_EQ(type.gguf_type, -1);  // GGUF has no such type
      } else {
        EXPECT_EQ(encoding_from_gguf_type(type.gguf_type), kind);
      }
      EXPECT_GT(type.block_elements, 0);
      EXPECT_GT(type.block_bytes, 0);
    }
  }
  // Removed types, activation-only types, and nonsense.
  for (const int64_t type : {-1, 4, 5, 9, 15, 31, 36, 43, 1 << 20}) {
    EXPECT_FALSE(encoding_from_gguf_type(type).has_value()) << type;
  }
}

TEST(Encoding, BitsPerWeightOfEveryBlockType) {
  const std::vector<std::pair<EncodingKind, double>> expected = {
      {EncodingKind::kQ4_0, 4.5},       {EncodingKind::kQ4_1, 5.0},
      {EncodingKind::kQ5_0, 5.5},       {EncodingKind::kQ5_1, 6.0},
      {EncodingKind::kQ8_0, 8.5},       {EncodingKind::kQ2_K, 2.625},
      {EncodingKind::kQ3_K, 3.4375},    {EncodingKind::kQ4_K, 4.5},
      {EncodingKind::kQ5_K, 5.5},       {EncodingKind::kQ6_K, 6.5625},
      {EncodingKind::kIQ2_XXS, 2.0625}, {EncodingKind::kIQ2_XS, 2.3125},
      {EncodingKind::kIQ2_S, 2.5625},   {EncodingKind::kIQ3_XXS, 3.0625},
      {EncodingKind::kIQ3_S, 3.4375},   {EncodingKind::kIQ1_S, 1.5625},
      {EncodingKind::kIQ1_M, 1.75},     {EncodingKind::kIQ4_NL, 4.5},
      {EncodingKind::kIQ4_XS, 4.25},    {EncodingKind::kTQ1_0, 1.6875},
      {EncodingKind::kTQ2_0, 2.0625},   {EncodingKind::kMXFP4, 4.25},
      {EncodingKind::kNVFP4, 4.5},      {EncodingKind::kQ1_0, 1.125},
      {EncodingKind::kQ2_0, 2.25}};
  for (const auto& [kind, bits] : expected) {
    EXPECT_EQ(8.0 * traits(kind).block_bytes / traits(kind).block_elements, bits)
        << traits(kind).name;
  }
}

TEST(Encoding, PlainTypesComeFromTheirDtype) {
  EXPECT_EQ(encoding_from_dtype(DType::kF32), EncodingKind::kF32);
  EXPECT_EQ(encoding_from_dtype(DType::kF16), EncodingKind::kF16);
  EXPECT_EQ(encoding_from_dtype(DType::kBF16), EncodingKind::kBF16);
  EXPECT_EQ(encoding_from_dtype(DType::kF64), EncodingKind::kF64);
  EXPECT_EQ(encoding_from_dtype(DType::kI8), EncodingKind::kI8);
  EXPECT_EQ(encoding_from_dtype(DType::kI16), EncodingKind::kI16);
  EXPECT_EQ(encoding_from_dtype(DType::kI32), EncodingKind::kI32);
  EXPECT_EQ(encoding_from_dtype(DType::kI64), EncodingKind::kI64);
  EXPECT_EQ(encoding_from_dtype(DType::kF8E4M3), EncodingKind::kF8E4M3);
  EXPECT_EQ(encoding_from_dtype(DType::kF8E5M2), EncodingKind::kF8E5M2);
  EXPECT_FALSE(encoding_from_dtype(DType::kU8).has_value());
  EXPECT_FALSE(encoding_from_dtype(DType::kU4).has_value());
  EXPECT_FALSE(encoding_from_dtype(DType::kBool).has_value());
}

TEST(Encoding, Names) {
  EXPECT_EQ(to_string(Encoding::plain(EncodingKind::kQ4_K)), "q4_k");
  EXPECT_EQ(to_string(Encoding::int_blocks(4, 32)), "int4/32");
  EXPECT_EQ(to_string(Encoding::lut(6, 16)), "lut6/16");
  EXPECT_EQ(to_string(Encoding::vector_lut(4, 2, 16)), "lut4x2/16");
  EXPECT_EQ(to_string(Encoding::sparse(Encoding::plain(EncodingKind::kF16), 5)), "sparse-f16:5");
  EXPECT_EQ(to_string(Encoding::sparse(Encoding::int_blocks(4, 32), 64)), "sparse-int4/32:64");
  EXPECT_EQ(to_string(Encoding::sparse(Encoding::lut(3, 16), 64)), "sparse-lut3/16:64");
}

TEST(Encoding, LayoutSizes) {
  const auto sizes = [](const Encoding& encoding, int64_t rows, int64_t columns) {
    return encoded_layout(encoding, rows, columns).value().part_bytes;
  };
  using Sizes = std::vector<uint64_t>;
  EXPECT_EQ(sizes(Encoding::plain(EncodingKind::kF16), 3, 5), (Sizes{30}));
  EXPECT_EQ(sizes(Encoding::plain(EncodingKind::kQ6_K), 2, 512), (Sizes{840}));
  EXPECT_EQ(sizes(Encoding::int_blocks(4, 5), 3, 15), (Sizes{23, 18}));
  EXPECT_EQ(sizes(Encoding::int_blocks(8, 15), 3, 15), (Sizes{45, 6}));
  EXPECT_EQ(sizes(Encoding::lut(3, 2), 4, 7), (Sizes{11, 32}));
  EXPECT_EQ(sizes(Encoding::lut(8, 1), 2, 3), (Sizes{6, 1024}));
  EXPECT_EQ(sizes(Encoding::lut(1, 4), 0, 7), (Sizes{0, 0}));
  EXPECT_EQ(sizes(Encoding::vector_lut(3, 2, 4), 8, 7), (Sizes{11, 64}));
  EXPECT_EQ(sizes(Encoding::sparse(Encoding::plain(EncodingKind::kF16), 2), 3, 5), (Sizes{2, 12}));
  EXPECT_EQ(sizes(Encoding::sparse(Encoding::int_blocks(4, 5), 7), 3, 15), (Sizes{6, 11, 18}));
  EXPECT_EQ(sizes(Encoding::sparse(Encoding::lut(3, 2), 3), 4, 7), (Sizes{4, 5, 32}));
  EXPECT_EQ(encoded_layout(Encoding::lut(3, 2), 4, 7).value().total_bytes(), 43u);
}

TEST(Encoding, LayoutRefusesWhatDoesNotDivide) {
  const auto refusal = [](const Encoding& encoding, int64_t rows, int64_t columns) {
    return encoded_layout(encoding, rows, columns).status().refusal();
  };
  EXPECT_EQ(refusal(Encoding::plain(EncodingKind::kQ4_K), 1, 128), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::plain(EncodingKind::kQ8_0), 1, 33), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::plain(EncodingKind::kF32), -1, 4), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::plain(EncodingKind::kF32), 4, -1), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::int_blocks(4, 32), 1, 48), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::int_blocks(4, 0), 1, 48), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::int_blocks(4, -16), 1, 48), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::int_blocks(3, 16), 1, 48), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::lut(4, 16), 24, 8), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::lut(4, 0), 24, 8), Refusal::kRange);
  for (const int bits : {-1, 0, 5, 7, 9, 64}) {
    EXPECT_EQ(refusal(Encoding::lut(bits, 8), 24, 8), Refusal::kRange) << bits;
  }
  EXPECT_EQ(refusal(Encoding::vector_lut(4, 4, 6), 24, 8), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::vector_lut(4, 0, 6), 24, 8), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::vector_lut(4, 2, 16), 24, 8), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::sparse(Encoding::int_blocks(4, 16), 49), 1, 48), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::sparse(Encoding::int_blocks(4, 16), -1), 1, 48), Refusal::kRange);
  EXPECT_EQ(refusal(Encoding::sparse(Encoding::int_blocks(4, 32), 4), 1, 48), Refusal::kRange);
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(refusal(Encoding::sparse(Encoding::plain(EncodingKind::kF16), 1), huge, huge),
            Refusal::kOverflow);
  EXPECT_EQ(refusal(Encoding::plain(EncodingKind::kF32), huge, huge), Refusal::kOverflow);
  EXPECT_EQ(refusal(Encoding::plain(EncodingKind::kF64), huge, 1), Refusal::kOverflow);
  EXPECT_EQ(refusal(Encoding::lut(8, 1), huge, 1), Refusal::kOverflow);
  EXPECT_EQ(refusal(Encoding::int_blocks(4, 1), huge, 2), Refusal::kOverflow);
}

TEST(Encoding, RowGranularityIsTheSmallestThatFits) {
  EXPECT_EQ(row_granularity(Encoding::plain(EncodingKind::kQ4_0), 32), 1);
  for (const int64_t columns : {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 24, 33}) {
    for (const int64_t group : {1, 2, 3, 4, 8, 16}) {
      for (const Encoding& encoding : matrix_encodings(1, group)) {
        const int64_t step = encoding.kind == EncodingKind::kLut ? group : 1;
        int64_t expected = step;
        while (expected * columns * encoding.bits % 8 != 0) expected += step;
        EXPECT_EQ(row_granularity(encoding, columns), expected)
            << to_string(encoding) << " columns " << columns;
      }
    }
  }
  const int64_t huge = int64_t{1} << 62;
  EXPECT_EQ(row_granularity(Encoding::lut(1, huge), 8), huge);
  EXPECT_EQ(row_granularity(Encoding::lut(1, huge - 1), 1), std::numeric_limits<int64_t>::max());
}

TEST(Encoding, IntByHand) {
  // Codes -8 7 -1 | 3 0 -2, one bit stream: the second row starts in the middle of a byte.
  const std::vector<Bytes> parts = {testing::from_hex("783fe0"), testing::from_hex("003c0040")};
  std::vector<float> out(6);
  ASSERT_TRUE(decode_rows(Encoding::int_blocks(4, 3), 2, 3, spans(parts), out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{-8, 7, -1, 6, 0, -4}));
}

TEST(Encoding, LutByHand) {
  // Three-bit indices 7 0 1 | 2 3 6 (one group): 111 000 001 010 011 110 read from the low end.
  Bytes table(16);
  for (size_t i = 0; i < 8; ++i) {
    testing::put_u16(table, 2 * i, f32_to_f16(static_cast<float>(i) * 0.5f - 1.0f));
  }
  const uint32_t stream = 7u | 0u << 3 | 1u << 6 | 2u << 9 | 3u << 12 | 6u << 15;
  Bytes indices(4);
  testing::put_u32(indices, 0, stream);
  indices.resize(3);
  std::vector<float> out(6);
  const std::vector<Bytes> parts = {indices, table};
  ASSERT_TRUE(decode_rows(Encoding::lut(3, 2), 2, 3, spans(parts), out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{2.5f, -1.0f, -0.5f, 0.0f, 0.5f, 2.0f}));
}

TEST(Encoding, RowGranularityOfMasksAndVectors) {
  for (const int64_t columns : {5, 8, 12, 33}) {
    for (const int64_t keep : {0, 1, 4, 5}) {
      for (const Encoding& dense : {Encoding::plain(EncodingKind::kF16), Encoding::int_blocks(4, 1),
                                    Encoding::lut(3, 2), Encoding::lut(6, 12)}) {
        const Encoding encoding = Encoding::sparse(dense, keep);
        const int64_t step = std::max<int64_t>(1, dense.group),
                      bits = dense.bits == 0 ? 16 : dense.bits;
        int64_t expected = step;
        while (expected * columns % 8 != 0 || expected * keep * bits % 8 != 0) expected += step;
        EXPECT_EQ(row_granularity(encoding, columns), expected) << to_string(encoding);
      }
    }
    for (const int bits : {3, 4, 8}) {
      const Encoding encoding = Encoding::vector_lut(bits, 2, 6);
      int64_t expected = 6;
      while (expected / 2 * columns * bits % 8 != 0) expected += 6;
      EXPECT_EQ(row_granularity(encoding, columns), expected) << to_string(encoding);
    }
  }
}

TEST(Encoding, SparseByHand) {
  // Rows . 1 . 2 | -3 . . 0.5: the mask from the low end is 1010 then 1001.
  const Bytes mask = testing::from_hex("9a");
  Bytes halves(8);
  const float values[] = {1, 2, -3, 0.5f};
  for (size_t i = 0; i < 4; ++i) testing::put_u16(halves, 2 * i, f32_to_f16(values[i]));
  std::vector<float> out(8, 9.0f);
  std::vector<Bytes> parts = {mask, halves};
  const Encoding f16 = Encoding::sparse(Encoding::plain(EncodingKind::kF16), 2);
  ASSERT_TRUE(decode_rows(f16, 2, 4, spans(parts), out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{0, 1, 0, 2, -3, 0, 0, 0.5f}));

  // Codes 7 -8 | -1 2 with scales 1, 2 | 0.5, 4 of blocks of two columns.
  Bytes scales(8);
  const float steps[] = {1, 2, 0.5f, 4};
  for (size_t i = 0; i < 4; ++i) testing::put_u16(scales, 2 * i, f32_to_f16(steps[i]));
  parts = {mask, testing::from_hex("872f"), scales};
  const Encoding int4 = Encoding::sparse(Encoding::int_blocks(4, 2), 2);
  ASSERT_TRUE(decode_rows(int4, 2, 4, spans(parts), out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{0, 7, 0, -16, -0.5f, 0, 0, 8}));

  // Indices 3 0 | 1 2 of a table for both rows.
  parts = {mask, testing::from_hex("93"), halves};
  const Encoding lut = Encoding::sparse(Encoding::lut(2, 2), 2);
  ASSERT_TRUE(decode_rows(lut, 2, 4, spans(parts), out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{0, 0.5f, 0, 1, 2, 0, 0, -3}));
}

TEST(Encoding, AMaskThatDoesNotFitItsValuesIsRefused) {
  const Encoding f16 = Encoding::sparse(Encoding::plain(EncodingKind::kF16), 2);
  std::vector<float> out(8);
  for (const char* mask : {"ba", "98", "ff", "00"}) {
    const std::vector<Bytes> parts = {testing::from_hex(mask), Bytes(8)};
    EXPECT_EQ(decode_rows(f16, 2, 4, spans(parts), out.data()).refusal(), Refusal::kRange) << mask;
  }
}

TEST(Encoding, VectorsByHand) {
  // Points (1, 2) (3, 4) (5, 6) (7, 8); indices 2 0 1 for rows 0 and 1, 3 3 0 for rows 2 and 3.
  Bytes table(16);
  for (size_t i = 0; i < 8; ++i)
    testing::put_u16(table, 2 * i, f32_to_f16(static_cast<float>(i + 1)));
  const std::vector<Bytes> parts = {testing::from_hex("d203"), table};
  std::vector<float> out(12);
  ASSERT_TRUE(decode_rows(Encoding::vector_lut(2, 2, 4), 4, 3, spans(parts), out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{5, 1, 3, 6, 2, 4, 7, 7, 1, 8, 8, 2}));
}

TEST(Encoding, AwkwardShapesEqualTheDefinition) {
  std::mt19937 random(7);
  struct Case {
    int64_t rows, columns, block, group;
  };
  for (const Case& shape : std::vector<Case>{{1, 1, 1, 1},
                                             {3, 5, 5, 3},
                                             {4, 7, 1, 2},
                                             {6, 31, 31, 3},
                                             {2, 4096, 32, 1},
                                             {5, 2049, 3, 5},
                                             {9, 683, 683, 3},
                                             {0, 8, 4, 2},
                                             {8, 0, 4, 2},
                                             {16, 96, 32, 16}}) {
    for (const Encoding& encoding : matrix_encodings(shape.block, shape.group)) {
      SCOPED_TRACE(to_string(encoding) + " " + std::to_string(shape.rows) + " x " +
                   std::to_string(shape.columns));
      const auto layout = encoded_layout(encoding, shape.rows, shape.columns);
      ASSERT_TRUE(layout.ok()) << layout.status().to_string();
      const std::vector<Bytes> parts = random_parts(*layout, random);
      const size_t count = static_cast<size_t>(shape.rows * shape.columns);
      std::vector<float> out(count + 1, 12345.0f);
      ASSERT_TRUE(decode_rows(encoding, shape.rows, shape.columns, spans(parts), out.data()).ok());
      for (size_t i = 0; i < count; ++i) {
        const int64_t row = static_cast<int64_t>(i) / shape.columns;
        const int64_t column = static_cast<int64_t>(i) % shape.columns;
        ASSERT_EQ(out[i], reference(encoding, parts, shape.columns, row, column)) << i;
      }
      EXPECT_EQ(out[count], 12345.0f) << "wrote beyond the tile";
    }
  }
}

// Cutting a matrix at multiples of row_granularity gives the same values.
TEST(Encoding, TilesEqualTheWhole) {
  std::mt19937 random(8);
  const int64_t rows = 30, columns = 21;
  std::vector<Encoding> all = matrix_encodings(7, 3);
  all.push_back(Encoding::plain(EncodingKind::kBF16));
  for (const Encoding& encoding : all) {
    SCOPED_TRACE(to_string(encoding));
    const auto layout = encoded_layout(encoding, rows, columns).value();
    std::vector<Bytes> parts;
    for (const uint64_t size : layout.part_bytes) {
      Bytes part(size);
      for (std::byte& byte : part) byte = static_cast<std::byte>(random() & 0x3B);
      parts.push_back(part);
    }
    std::vector<float> whole(static_cast<size_t>(rows * columns)), tiles(whole.size());
    ASSERT_TRUE(decode_rows(encoding, rows, columns, spans(parts), whole.data()).ok());
    const int64_t step = row_granularity(encoding, columns);
    for (int64_t row = 0; row < rows; row += step) {
      const int64_t count = std::min(step, rows - row);
      const auto before = encoded_layout(encoding, row, columns).value().part_bytes;
      const auto size = encoded_layout(encoding, count, columns).value().part_bytes;
      std::vector<std::span<const std::byte>> tile;
      for (size_t i = 0; i < parts.size(); ++i) {
        tile.push_back(std::span<const std::byte>(parts[i]).subspan(before[i], size[i]));
      }
      ASSERT_TRUE(
          decode_rows(encoding, count, columns, tile, &tiles[static_cast<size_t>(row * columns)])
              .ok());
    }
    EXPECT_EQ(tiles, whole);
  }
}

TEST(Encoding, DecodeRefusesPartsOfAnotherSize) {
  std::mt19937 random(9);
  for (const Encoding& encoding : matrix_encodings(4, 2)) {
    SCOPED_TRACE(to_string(encoding));
    const std::vector<Bytes> good = random_parts(encoded_layout(encoding, 4, 8).value(), random);
    std::vector<float> out(32);
    EXPECT_TRUE(decode_rows(encoding, 4, 8, spans(good), out.data()).ok());
    for (size_t part = 0; part < 2; ++part) {
      for (const bool longer : {false, true}) {
        std::vector<Bytes> bad = good;
        longer ? bad[part].push_back(std::byte{0}) : bad[part].pop_back();
        EXPECT_EQ(decode_rows(encoding, 4, 8, spans(bad), out.data()).refusal(), Refusal::kRange);
      }
    }
    const std::vector<Bytes> one = {good[0]};
    EXPECT_EQ(decode_rows(encoding, 4, 8, spans(one), out.data()).refusal(), Refusal::kRange);
    EXPECT_EQ(decode_rows(encoding, 3, 7, spans(good), out.data()).refusal(), Refusal::kRange);
  }
  const std::vector<Bytes> rows = {Bytes(36)};
  std::vector<float> out(64);
  const Encoding q4_0 = Encoding::plain(EncodingKind::kQ4_0);
  EXPECT_TRUE(decode_rows(q4_0, 2, 32, spans(rows), out.data()).ok());
  EXPECT_TRUE(decode_rows(q4_0, 1, 64, spans(rows), out.data()).ok());
  EXPECT_EQ(decode_rows(q4_0, 1, 32, spans(rows), out.data()).refusal(), Refusal::kRange);
  EXPECT_EQ(decode_rows(q4_0, 2, 16, spans(rows), out.data()).refusal(), Refusal::kRange);
}

}  // namespace
}  // namespace pome
