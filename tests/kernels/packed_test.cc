// Packed weights: what tiles hold, and the products of every instruction set.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "kernels/kernel_test_util.h"
#include "kernels/packed/products.h"

namespace pome::kernels {
namespace {

std::vector<Encoding> packable() {
  std::vector<Encoding> out;
  for (const EncodingKind kind :
       {EncodingKind::kQ4_0, EncodingKind::kQ4_1, EncodingKind::kQ5_0, EncodingKind::kQ5_1,
        EncodingKind::kQ8_0, EncodingKind::kQ2_K, EncodingKind::kQ3_K, EncodingKind::kQ4_K,
        EncodingKind::kQ5_K, EncodingKind::kQ6_K, EncodingKind::kIQ4_NL, EncodingKind::kIQ4_XS,
        EncodingKind::kMXFP4})
    out.push_back(Encoding::plain(kind));
  for (const int bits : {4, 8})
    for (const int64_t block : {32, 64, 48, 256}) out.push_back(Encoding::int_blocks(bits, block));
  for (const int bits : {1, 2, 3, 4, 6, 8})
    for (const int64_t group : {1, 4, 16}) out.push_back(Encoding::lut(bits, group));
  return out;
}

struct Aligned {
  explicit Aligned(int64_t bytes) : memory(static_cast<size_t>(bytes) + 64) {}
  std::byte* data() {
    const auto at = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (64 - at % 64) % 64;
  }
  std::vector<std::byte> memory;
};

struct Packed {
  Packed(const RandomWeight& weight, const PackedFormat& format)
      : layout(packed_layout(format, weight.view.rows, weight.view.columns)),
        memory(layout.tiles * layout.tile_bytes),
        view{format, layout, memory.data()} {
    for (int64_t tile = 0; tile < layout.tiles; ++tile)
      pack_tile(view, weight.view, tile * kTileRows, memory.data() + tile * layout.tile_bytes);
  }
  PackedLayout layout;
  Aligned memory;
  PackedView view;
};

struct Quantised {
  Quantised(QuantizeKernel kernel, const std::vector<float>& x, int64_t m, int64_t columns,
            ActivationBits bits)
      : memory(activation_bytes(m, columns)),
        view(activations_in(memory.data(), m, columns, bits)) {
    for (int64_t row = 0; row < m; ++row) kernel(x.data() + row * columns, columns, view, row);
  }
  Aligned memory;
  Activations view;
};

// Calls check(encoding, weight, packed) for every encoding that packs at shapes of all kinds, or
// at one that all of them take.
template <typename Check>
void for_packed(const Check& check, bool one_shape = false) {
  std::vector<int64_t> all_columns = {16, 32, 48, 96, 256, 288, 512}, all_rows = {16, 48};
  if (one_shape) all_columns = {256}, all_rows = {16};
  int seen = 0;
  for (const Encoding& encoding : packable()) {
    for (const int64_t columns : all_columns) {
      for (const int64_t rows : all_rows) {
        const auto format = packed_format(encoding, columns);
        const RandomWeight weight(encoding, rows, columns, static_cast<uint32_t>(rows + columns));
        if (!format || !weight.valid) continue;
        check(encoding, weight, Packed(weight, *format));
        ++seen;
      }
    }
  }
  EXPECT_GT(seen, one_shape ? 25 : 100);
}

TEST(Packed, TilesHoldTheStoredWeights) {
  for_packed([](const Encoding& encoding, const RandomWeight& weight, const Packed& packed) {
    const int64_t columns = weight.view.columns;
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < weight.view.rows; ++r) {
      unpack_row(packed.view, r, row.data());
      const float* expected = weight.values.data() + r * columns;
      float largest = 0;
      for (int64_t k = 0; k < columns; ++k) largest = std::max(largest, std::fabs(expected[k]));
      // Tables are rounded to bytes; the largest entry need not occur in the row.
      const float bound = encoding.kind == EncodingKind::kLut ? 0.6f / 127.0f : 1e-6f * largest;
      for (int64_t k = 0; k < columns; ++k)
        ASSERT_NEAR(row[static_cast<size_t>(k)], expected[k], bound)
            << to_string(encoding) << " columns " << columns << " row " << r << " column " << k;
    }
  });
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

// One product: random activations and biases, what portable code makes of them, and how far from
// it other code may be.
struct Product {
  Product(const Packed& weights, ActivationBits precision, std::vector<float> values)
      : packed(weights),
        bits(precision),
        rows(packed.layout.rows),
        columns(packed.layout.columns),
        m(static_cast<int64_t>(values.size()) / columns),
        ldy(rows + 3),
        x(std::move(values)),
        bias(random_floats(rows, 12)),
        acts(quantize_portable, x, m, columns, bits),
        scratch(gemm_panel_bytes(columns)) {}

  std::vector<float> run(PackedKernel kernel) {
    std::vector<float> y(static_cast<size_t>(m * ldy), -77.0f);
    kernel({packed.view, 0, packed.layout.tiles, acts.view, bias.data(), y.data(), ldy,
            scratch.data()});
    return y;
  }
  std::vector<float> run(const PackedEntry& entry) {
    return run(bits == ActivationBits::kCoarse ? entry.gemm : entry.gemv);
  }
  // Sums of |x w|, and of |x| times the largest |w| of the row where weights are rounded.
  std::vector<double> bounds() const {
    std::vector<double> out(static_cast<size_t>(m * ldy), 0);
    std::vector<double> size(static_cast<size_t>(m * columns));
    for (int64_t i = 0; i < m * columns; ++i)
      size[static_cast<size_t>(i)] = std::fabs(activation(acts.view, i / columns, i % columns));
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      unpack_row(packed.view, r, row.data());
      float largest = 0;
      for (const float w : row) largest = std::max(largest, std::fabs(w));
      const double rounding = bits == ActivationBits::kCoarse ? panel_step * largest : 0;
      for (int64_t i = 0; i < m; ++i) {
        double& bound = out[static_cast<size_t>(i * ldy + r)];
        bound = 1e-5;
        for (int64_t k = 0; k < columns; ++k)
          bound += size[static_cast<size_t>(i * columns + k)] *
                   (1e-5 * std::fabs(row[static_cast<size_t>(k)]) + rounding);
      }
    }
    return out;
  }

  // Of the weights that the scale of a panel allows for, the row should hold the largest.
  double panel_step = 0.01;
  const Packed& packed;
  ActivationBits bits;
  int64_t rows, columns, m, ldy;
  std::vector<float> x, bias;
  Quantised acts;
  Aligned scratch;
};

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

}  // namespace
}  // namespace pome::kernels
