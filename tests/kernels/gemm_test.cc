#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include "kernels/kernel_test_util.h"

namespace pome::kernels {
namespace {

constexpr double kEps = 0x1p-24;

// The bound of the header: eight partial sums of k / 8 terms, then three additions.
double bound(const float* x, const float* w, int64_t k) {
  double size = 0;
  for (int64_t i = 0; i < k; ++i)
    size += std::fabs(static_cast<double>(x[i]) * static_cast<double>(w[i]));
  return (static_cast<double>(k) / 8 + 5) * kEps * size + 1e-30;
}
double exact(const float* x, const float* w, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(w[i]);
  return sum;
}

TEST(Decode, EveryKernelGivesTheBitsOfTheEncoding) {
  for (const Encoding& encoding : test_encodings()) {
    for (const int64_t columns : {1, 7, 8, 31, 32, 33, 64, 96, 256, 320}) {
      const RandomWeight weight(encoding, 32, columns, static_cast<uint32_t>(columns));
      if (!weight.valid) continue;  // the encoding does not divide this shape
      for (const DecodeEntry& entry : decode_kernels()) {
        if (!runs_here(entry.isa) || !entry.fits(encoding, columns)) continue;
        if (columns * encoding.bits % 8 != 0 && entry.isa != Isa::kPortable) continue;
        for (const int64_t row : {0, 3, 17}) {
          std::vector<float> out(static_cast<size_t>(5 * columns + 1), -77.0f);
          entry.run(weight.view, row, 5, out.data());
          for (int64_t i = 0; i < 5 * columns; ++i)
            ASSERT_EQ(out[static_cast<size_t>(i)],
                      weight.values[static_cast<size_t>(row * columns + i)])
                << entry.name << " " << to_string(encoding) << " columns " << columns << " row "
                << row << " element " << i;
          ASSERT_EQ(out.back(), -77.0f) << entry.name << " wrote beyond its rows";
        }
      }
    }
  }
}

TEST(Decode, EveryEncodingHasAKernelOnEveryIsa) {
  for (const Isa isa : available_isas())
    for (const Encoding& encoding : test_encodings())
      EXPECT_NE(choose_decode(isa, encoding, 64), nullptr) << to_string(encoding);
  EXPECT_EQ(choose_decode(Isa::kPortable, Encoding::plain(EncodingKind::kF16), 64),
            decode_portable);
#if defined(POME_HAVE_AVX2_KERNELS)
  EXPECT_EQ(choose_decode(Isa::kAvx512, Encoding::plain(EncodingKind::kF16), 64), decode_f16_avx2);
  EXPECT_EQ(choose_decode(Isa::kAvx2, Encoding::int_blocks(4, 8), 64), decode_portable);
  EXPECT_EQ(choose_gemv(Isa::kPortable, Encoding::plain(EncodingKind::kF16), 64), nullptr);
#endif
}

TEST(Panel, AgreesWithPlainSumsAtAwkwardSizes) {
  for (const PanelEntry& entry : panel_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const int64_t k : {1, 7, 8, 9, 31, 64, 257}) {
      for (const int64_t m : {1, 2, 3, 4, 5, 13}) {
        for (const int64_t n : {1, 2, 3, 4, 5, 16, 19}) {
          const int64_t ldx = k + 3, ldw = k + 1, ldy = n + 2;
          const auto x = random_floats(m * ldx, 1), w = random_floats(n * ldw, 2);
          std::vector<float> y(static_cast<size_t>(m * ldy), -77.0f);
          entry.run({x.data(), ldx, m, w.data(), ldw, n, k, y.data(), ldy});
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t j = 0; j < n; ++j) {
              const float* a = x.data() + i * ldx;
              const float* b = w.data() + j * ldw;
              ASSERT_NEAR(y[static_cast<size_t>(i * ldy + j)], exact(a, b, k), bound(a, b, k))
                  << entry.name << " m " << m << " n " << n << " k " << k;
            }
            for (int64_t j = n; j < ldy; ++j)
              ASSERT_EQ(y[static_cast<size_t>(i * ldy + j)], -77.0f) << entry.name;
          }
        }
      }
    }
  }
}

// One order of summation per K: the shape of the call does not show in the bits.
TEST(Panel, BitsDoNotDependOnTheTile) {
  const int64_t k = 203, m = 11, n = 14;
  const auto x = random_floats(m * k, 3), w = random_floats(n * k, 4);
  for (const PanelEntry& entry : panel_kernels()) {
    if (!runs_here(entry.isa)) continue;
    std::vector<float> all(static_cast<size_t>(m * n));
    entry.run({x.data(), k, m, w.data(), k, n, k, all.data(), n});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        float one = 0;
        entry.run({x.data() + i * k, k, 1, w.data() + j * k, k, 1, k, &one, 1});
        ASSERT_EQ(one, all[static_cast<size_t>(i * n + j)]) << entry.name;
      }
    }
  }
}

TEST(Gemv, BitEqualToDecodeAndPanel) {
  for (const GemvEntry& entry : gemv_kernels()) {
    if (!runs_here(entry.isa)) continue;
    int tried = 0;
    for (const Encoding& encoding : test_encodings()) {
      for (const int64_t columns : {1, 7, 8, 31, 32, 33, 64, 96, 256, 320}) {
        if (!entry.fits(encoding, columns)) continue;
        const RandomWeight weight(encoding, 32, columns, 5);
        if (!weight.valid) continue;
        ++tried;
        const auto x = random_floats(columns, 6);
        for (const auto& [row, rows] : {std::pair<int64_t, int64_t>{0, 32}, {3, 1}, {5, 7}}) {
          std::vector<float> y(static_cast<size_t>(rows + 1), -77.0f),
              expected(static_cast<size_t>(rows));
          entry.run(weight.view, row, rows, x.data(), y.data());
          choose_panel(entry.isa)({x.data(), columns, 1, weight.values.data() + row * columns,
                                   columns, rows, columns, expected.data(), rows});
          ASSERT_EQ(y.back(), -77.0f) << entry.name;
          y.pop_back();
          ASSERT_EQ(y, expected) << entry.name << " " << to_string(encoding) << " columns "
                                 << columns;
        }
      }
    }
    EXPECT_GT(tried, 0) << entry.name << " was never tried";
  }
}

TEST(Gemm, AllTokenCountsGiveTheSameBits) {
  const int64_t rows = 48, columns = 96, most = 9;
  for (const Isa isa : available_isas()) {
    for (const Encoding& encoding : test_encodings()) {
      const RandomWeight weight(encoding, rows, columns, 7);
      if (!weight.valid) continue;
      const GemmKernels kernels = choose_gemm(isa, encoding, columns);
      EXPECT_FALSE(gemm_name(kernels).empty());
      const auto x = random_floats(most * columns, 8), bias = random_floats(rows, 9);
      std::vector<float> scratch(static_cast<size_t>(gemm_scratch(columns)));
      std::vector<float> all(static_cast<size_t>(most * rows)), part(all.size());
      gemm_rows(kernels, weight.view, 0, rows,
                {x.data(), columns, most, bias.data(), all.data(), rows}, scratch.data());
      for (int64_t m = 0; m < most; ++m) {  // token by token, rows in two pieces
        for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 20}, {20, rows}})
          gemm_rows(kernels, weight.view, from, to,
                    {x.data() + m * columns, columns, 1, bias.data(), part.data() + m * rows + from,
                     rows},
                    scratch.data());
      }
      ASSERT_EQ(all, part) << to_string(isa) << " " << to_string(encoding);
      for (int64_t m = 0; m < most; ++m) {
        for (int64_t n = 0; n < rows; ++n) {
          const float* a = x.data() + m * columns;
          const float* b = weight.values.data() + n * columns;
          const double wanted =
              exact(a, b, columns) + static_cast<double>(bias[static_cast<size_t>(n)]);
          ASSERT_NEAR(all[static_cast<size_t>(m * rows + n)], wanted,
                      bound(a, b, columns) + 2 * kEps * std::fabs(wanted));
        }
      }
    }
  }
}

}  // namespace
}  // namespace pome::kernels
