// Packed weights: what tiles hold, and the products of every instruction set.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "kernels/packed/tile.h"
#include "kernels/packed_test_util.h"

namespace pome::kernels {
namespace {

void expect_stored(const Encoding& encoding, const RandomWeight& weight, const Packed& packed) {
  const int64_t columns = weight.view.columns;
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = 0; r < weight.view.rows; ++r) {
    unpack_row(packed.view, r, row.data());
    const float* expected = weight.values.data() + r * columns;
    const auto largest_of = [&](int64_t begin, int64_t end) {
      float largest = 0;
      for (int64_t k = begin; k < end; ++k) largest = std::max(largest, std::fabs(expected[k]));
      return largest;
    };
    for (int64_t k = 0; k < columns; ++k) {
      float bound = 1e-6f * largest_of(0, columns);
      if (encoding.kind == EncodingKind::kLut) {
        const int64_t block = k / kBlockColumns * kBlockColumns;
        // Of a table, the largest entry need not occur in the row.
        bound = packed.view.format.table == PackedTable::kTile
                    ? 0.6f / (columns < kWideColumns ? 65000 : 128)
                    : largest_of(block, std::min(columns, block + kBlockColumns)) /
                          (packed.view.format.bits == 16 ? 65000 : 253);
      }
      ASSERT_NEAR(row[static_cast<size_t>(k)], expected[k], bound)
          << to_string(encoding) << " columns " << columns << " row " << r << " column " << k;
    }
  }
}

TEST(Packed, TilesHoldTheStoredWeights) {
  for_packed(expect_stored);
  // Palettes have other codes in wide matrices.
  for (const Encoding& encoding : packable()) {
    if (encoding.kind != EncodingKind::kLut) continue;
    const RandomWeight weight(encoding, 16, kWideColumns, 5);
    ASSERT_TRUE(weight.valid) << to_string(encoding);
    expect_stored(encoding, weight, Packed(weight, *packed_format(encoding, kWideColumns)));
  }
}

TEST(Packed, RowsBeyondTheMatrixAreZero) {
  const RandomWeight weight(Encoding::plain(EncodingKind::kQ4_K), 5, 256, 3);
  ASSERT_TRUE(weight.valid);
  const Packed packed(weight, *packed_format(weight.view.encoding, 256));
  std::vector<float> row(256);
  unpack_row(packed.view, 4, row.data());
  EXPECT_NEAR(row[7], weight.values[4 * 256 + 7], 1e-6);
  unpack_row(packed.view, 5, row.data());
  for (const float value : row) ASSERT_EQ(value, 0.0f);
}

TEST(Packed, FloatsAndOddShapesStayAsTheyAre) {
  EXPECT_FALSE(packed_format(Encoding::plain(EncodingKind::kF16), 256));
  EXPECT_FALSE(packed_format(Encoding::plain(EncodingKind::kIQ1_S), 256));
  EXPECT_FALSE(packed_format(Encoding::int_blocks(4, 8), 256));
  EXPECT_FALSE(packed_format(Encoding::lut(4, 16), 7));
}

TEST(Packed, OffsetsAreKnownWhereCodeIsCompiled) {
  for (const Encoding& encoding : packable()) {
    const auto format = packed_format(encoding, 256);
    if (!format) continue;
    EXPECT_EQ(code_offset(format->bits, format->scales, format->table != PackedTable::kNone),
              format->offset)
        << to_string(encoding);
  }
}

TEST(Quantize, EveryKernelGivesTheSameBits) {
  for (const QuantizeEntry& entry : quantize_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const int64_t columns : {1, 16, 31, 32, 100, 128, 272}) {
      for (const auto bits :
           {ActivationBits::kFine, ActivationBits::kByte, ActivationBits::kCoarse}) {
        auto x = random_floats(3 * columns, 7);
        x[0] = 1e-38f;  // the smallest blocks are zero
        if (columns == 272)
          x[static_cast<size_t>(columns + 40)] = std::numeric_limits<float>::quiet_NaN();
        if (columns == 272)
          x[static_cast<size_t>(2 * columns + 140)] = -std::numeric_limits<float>::infinity();
        const Quantised expected(quantize_portable, x, 3, columns, bits);
        const Quantised got(entry.run, x, 3, columns, bits);
        const auto size = static_cast<size_t>(3 * expected.view.columns);
        ASSERT_EQ(0, std::memcmp(expected.view.high, got.view.high, size))
            << entry.name << " columns " << columns;
        if (bits == ActivationBits::kFine) {
          ASSERT_EQ(0, std::memcmp(expected.view.low, got.view.low, size)) << entry.name;
        }
        for (int64_t i = 0; i < 3 * expected.view.scales(); ++i) {
          const float a = expected.view.scale[i], b = got.view.scale[i];
          ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << entry.name << " scale " << i;
        }
        for (int64_t i = 0; i < 3 * expected.view.sums(); ++i) {
          ASSERT_EQ(expected.view.sum[i], got.view.sum[i]) << entry.name << " sum " << i;
          const float a = expected.view.scaled_sum[i], b = got.view.scaled_sum[i];
          ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << entry.name << " sum " << i;
        }
      }
    }
  }
}

// All instruction sets against portable code; and, as integer sums are exact and floats are
// combined in one order, against each other bit for bit.
void check_product(const Encoding& encoding, Product product) {
  const std::vector<float> expected = product.run(packed_gemv_portable);
  const std::vector<double> bounds = product.bounds();
  std::vector<float> first;
  for (const PackedEntry& entry : packed_kernels()) {
    if (!runs_here(entry.isa) || entry.isa == Isa::kPortable) continue;
    const std::vector<float> got = product.run(entry);
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], expected[i], bounds[i])
          << entry.name << " " << to_string(encoding) << " columns " << product.columns << " m "
          << product.m << " activations " << static_cast<int>(product.bits) << " element " << i;
    if (first.empty()) first = got;
    ASSERT_EQ(got, first) << entry.name << " " << to_string(encoding) << " columns "
                          << product.columns << " m " << product.m;
  }
}

TEST(PackedProducts, FewTokensAgreeWithPlainSums) {
  for_packed([](const Encoding& encoding, const RandomWeight&, const Packed& packed) {
    for (const int64_t m : {1, 7})
      for (const auto bits : {ActivationBits::kFine, ActivationBits::kByte})
        check_product(encoding,
                      Product(packed, bits, random_floats(m * packed.layout.columns, 11)));
  });
}

TEST(PackedProducts, ManyTokensAgreeWithinTheRoundingOfThePanel) {
  for_packed([](const Encoding& encoding, const RandomWeight&, const Packed& packed) {
    for (const int64_t m : {1, 23})
      check_product(encoding, Product(packed, ActivationBits::kCoarse,
                                      random_floats(m * packed.layout.columns, 11)));
  });
}

// Where sums of bytes would overflow 16 bits if they could.
TEST(PackedProducts, LargestCodesTimesLargestActivations) {
  for_packed(
      [](const Encoding& encoding, const RandomWeight& weight, const Packed& random) {
        Packed packed(weight, random.view.format);
        const PackedLayout& layout = packed.layout;
        const int64_t columns = layout.columns;
        for (const int code : {0xFF, 0x00}) {
          for (int64_t block = 0; block < layout.blocks; ++block)
            std::memset(packed.memory.data() + layout.codes_at(block), code,
                        static_cast<size_t>(layout.block_bytes));
          for (const float x : {1.0f, -1.0f}) {
            for (const auto bits :
                 {ActivationBits::kFine, ActivationBits::kByte, ActivationBits::kCoarse}) {
              // The second level of a table may hold any byte; only fine activations meet it.
              if (packed.view.format.table == PackedTable::kTile)
                std::memset(packed.memory.data() + layout.head_bytes - 48,
                            bits == ActivationBits::kFine ? code : 128, 16);
              Product product(packed, bits, std::vector<float>(static_cast<size_t>(columns), x));
              product.panel_step = 0.3;
              check_product(encoding, std::move(product));
            }
          }
          // As two bytes, one step less is the least low byte: 127 * 256 - 128.
          std::vector<float> x(static_cast<size_t>(columns), (127.0f * 256 - 128) / 256);
          for (size_t k = 0; k < x.size(); k += kBlockColumns) x[k] = 127;
          check_product(encoding, Product(packed, ActivationBits::kFine, x));
        }
      },
      true);
}

TEST(PackedProducts, PartialTilesAndRangesOfTiles) {
  const RandomWeight weight(Encoding::plain(EncodingKind::kQ4_0), 53, 64, 9);
  ASSERT_TRUE(weight.valid);
  const Packed packed(weight, *packed_format(weight.view.encoding, 64));
  check_product(weight.view.encoding,
                Product(packed, ActivationBits::kFine, random_floats(3 * 64, 11)));
  check_product(weight.view.encoding,
                Product(packed, ActivationBits::kCoarse, random_floats(13 * 64, 11)));
}

// x of so many columns does not stay in the first-level cache: tiles are read by two.
TEST(PackedProducts, WideRows) {
  for (const Encoding& encoding :
       {Encoding::plain(EncodingKind::kQ4_K), Encoding::plain(EncodingKind::kQ6_K),
        Encoding::plain(EncodingKind::kQ8_0), Encoding::int_blocks(4, 32), Encoding::lut(4, 16),
        Encoding::lut(8, 16)}) {
    for (const int64_t rows : {16, 32, 48, 59}) {
      if (rows == 59 && encoding.kind == EncodingKind::kLut) continue;  // whole groups only
      const RandomWeight weight(encoding, rows, 4096, static_cast<uint32_t>(rows));
      ASSERT_TRUE(weight.valid) << to_string(encoding);
      const Packed packed(weight, *packed_format(encoding, 4096));
      check_product(encoding, Product(packed, ActivationBits::kByte, random_floats(4096, 11)));
      // Rows of activations that are further apart than they are wide.
      check_product(encoding, Product(packed, ActivationBits::kByte, random_floats(3 * 4096, 11)));
      check_product(encoding,
                    Product(packed, ActivationBits::kCoarse, random_floats(9 * 4096, 11)));
    }
  }
}

TEST(PackedProducts, TwoMatricesGiveWhatEachOfThemGives) {
  for (const Encoding& encoding :
       {Encoding::plain(EncodingKind::kQ4_K), Encoding::plain(EncodingKind::kQ6_K),
        Encoding::int_blocks(8, 256), Encoding::lut(4, 16)}) {
    const RandomWeight one(encoding, 48, 256, 1), other(encoding, 48, 256, 2);
    ASSERT_TRUE(one.valid && other.valid) << to_string(encoding);
    const auto format = *packed_format(encoding, 256);
    const Packed packed_one(one, format), packed_other(other, format);
    for (const int64_t m : {1, 3}) {
      for (const auto bits :
           {ActivationBits::kFine, ActivationBits::kByte, ActivationBits::kCoarse}) {
        Product first(packed_one, bits, random_floats(m * 256, 11));
        Product second(packed_other, bits, random_floats(m * 256, 11));
        second.bias = random_floats(48, 13);
        for (const PackedEntry& entry : packed_kernels()) {
          if (!runs_here(entry.isa)) continue;
          const std::vector<float> wanted[] = {first.run(entry), second.run(entry)};
          std::vector<float> got[] = {std::vector<float>(wanted[0].size(), -77.0f),
                                      std::vector<float>(wanted[0].size(), -77.0f)};
          entry.multiply(first.args(got[0].data()), second.args(got[1].data()));
          for (const int i : {0, 1})
            ASSERT_EQ(got[i], wanted[i]) << entry.name << " " << to_string(encoding) << " " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace pome::kernels
