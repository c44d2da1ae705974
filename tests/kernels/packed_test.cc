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

// Calls check(encoding, weight, packed) for every encoding that packs at shapes of all kinds.
template <typename Check>
void for_packed(const Check& check) {
  int seen = 0;
  for (const Encoding& encoding : packable()) {
    for (const int64_t columns : {16, 32, 48, 96, 256, 288, 512}) {
      for (const int64_t rows : {16, 48}) {
        const auto format = packed_format(encoding, columns);
        const RandomWeight weight(encoding, rows, columns, static_cast<uint32_t>(rows + columns));
        if (!format || !weight.valid) continue;
        check(encoding, weight, Packed(weight, *format));
        ++seen;
      }
    }
  }
  EXPECT_GT(seen, 100);
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

// Sum of |x w| of a row: what errors are measured against.
double size_of(const Activations& x, int64_t m, const float* w, int64_t columns, double* largest) {
  double size = 0;
  *largest = 0;
  for (int64_t k = 0; k < columns; ++k) {
    size += std::fabs(activation(x, m, k) * static_cast<double>(w[k]));
    *largest = std::max(*largest, static_cast<double>(std::fabs(w[k])));
  }
  return size;
}

void check_product(const PackedEntry& entry, ActivationBits bits, int64_t m,
                   const Encoding& encoding, const Packed& packed) {
  const bool many = bits == ActivationBits::kCoarse;
  const int64_t rows = packed.layout.rows, columns = packed.layout.columns, ldy = rows + 3;
  const auto x = random_floats(m * columns, 11);
  const auto bias = random_floats(rows, 12);
  const Quantised acts(quantize_portable, x, m, columns, bits);
  std::vector<float> expected(static_cast<size_t>(m * ldy), -77.0f), got = expected;
  Aligned scratch(gemm_panel_bytes(columns));
  ProductArgs args{packed.view, 0,   packed.layout.tiles, acts.view, bias.data(),
                   nullptr,     ldy, scratch.data()};
  args.y = expected.data();
  packed_gemv_portable(args);
  args.y = got.data();
  (many ? entry.gemm : entry.gemv)(args);
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    unpack_row(packed.view, r, row.data());
    for (int64_t i = 0; i < m; ++i) {
      double largest, abs_sum = 0;
      const double size = size_of(acts.view, i, row.data(), columns, &largest);
      for (int64_t k = 0; k < columns; ++k) abs_sum += std::fabs(activation(acts.view, i, k));
      const double bound = 1e-5 * size + 1e-5 + (many ? abs_sum * largest / 100 : 0);
      ASSERT_NEAR(got[static_cast<size_t>(i * ldy + r)], expected[static_cast<size_t>(i * ldy + r)],
                  bound)
          << entry.name << (many ? " gemm " : " gemv ") << to_string(encoding) << " columns "
          << columns << " m " << m << " row " << r;
    }
  }
  for (int64_t i = 0; i < m; ++i)
    for (int64_t r = rows; r < ldy; ++r)
      ASSERT_EQ(got[static_cast<size_t>(i * ldy + r)], -77.0f) << "wrote beyond the rows";
}

TEST(PackedProducts, FewTokensAgreeWithPlainSums) {
  for_packed([](const Encoding& encoding, const RandomWeight&, const Packed& packed) {
    for (const PackedEntry& entry : packed_kernels())
      if (runs_here(entry.isa))
        for (const int64_t m : {1, 2, 7})
          for (const auto bits : {ActivationBits::kFine, ActivationBits::kByte})
            check_product(entry, bits, m, encoding, packed);
  });
}

TEST(PackedProducts, ManyTokensAgreeWithinTheRoundingOfThePanel) {
  for_packed([](const Encoding& encoding, const RandomWeight&, const Packed& packed) {
    for (const PackedEntry& entry : packed_kernels())
      if (runs_here(entry.isa) && entry.isa != Isa::kPortable)
        for (const int64_t m : {1, 12, 23})
          check_product(entry, ActivationBits::kCoarse, m, encoding, packed);
  });
}

TEST(PackedProducts, PartialTilesAndRangesOfTiles) {
  const RandomWeight weight(Encoding::plain(EncodingKind::kQ4_0), 53, 64, 9);
  ASSERT_TRUE(weight.valid);
  const Packed packed(weight, *packed_format(weight.view.encoding, 64));
  for (const PackedEntry& entry : packed_kernels()) {
    if (!runs_here(entry.isa)) continue;
    check_product(entry, ActivationBits::kFine, 3, weight.view.encoding, packed);
    check_product(entry, ActivationBits::kCoarse, 13, weight.view.encoding, packed);
  }
}

}  // namespace
}  // namespace pome::kernels
