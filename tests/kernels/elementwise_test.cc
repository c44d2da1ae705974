#include "kernels/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "kernels/kernel_test_util.h"

namespace pome::kernels {
namespace {

double reference(MapOp op, double x) {
  switch (op) {
    case MapOp::kExp:
      return std::exp(x);
    case MapOp::kSilu:
      return x / (1 + std::exp(-x));
    case MapOp::kGelu:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case MapOp::kGeluTanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / 3.14159265358979323846) *
                               (x + 0.044715 * x * x * x)));
    case MapOp::kTanh:
      return std::tanh(x);
    case MapOp::kRelu:
      return std::max(x, 0.0);
  }
  return 0;
}

// Dense: every 1021st float between -range and range.
std::vector<float> grid(float range) {
  std::vector<float> out;
  const uint32_t last = std::bit_cast<uint32_t>(range);
  for (uint32_t bits = 0; bits <= last; bits += 1021) {
    out.push_back(std::bit_cast<float>(bits));
    out.push_back(-std::bit_cast<float>(bits));
  }
  return out;
}

TEST(Map, ErrorBoundsOnADenseGrid) {
  for (const MapEntry& entry : map_kernels()) {
    if (!runs_here(entry.isa)) continue;
    const bool is_exp = entry.op == MapOp::kExp;
    const auto x = grid(is_exp ? 87.3f : 60.0f);
    std::vector<float> y(x.size());
    entry.run(x.data(), y.data(), static_cast<int64_t>(x.size()));
    double worst = 0;
    float at = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double wanted = reference(entry.op, static_cast<double>(x[i]));
      double size = std::fabs(wanted);
      if (!is_exp && entry.op != MapOp::kTanh)
        size = std::max(size, static_cast<double>(std::fabs(x[i])));
      if (size < 1e-37) continue;
      const double error = std::fabs(static_cast<double>(y[i]) - wanted) / size;
      if (error > worst) {
        worst = error;
        at = x[i];
      }
    }
    EXPECT_LT(worst, is_exp ? 0x1p-22 : 4e-7) << entry.name << " at " << at;
  }
}

TEST(Map, ExpAtTheEdges) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f,   -0.0f,  88.7f,   88.8f,  1e30f,    infinity,
                                -87.2f, -87.4f, -104.0f, -1e30f, -infinity};
  for (const MapEntry& entry : map_kernels()) {
    if (!runs_here(entry.isa) || entry.op != MapOp::kExp) continue;
    std::vector<float> y(x.size());
    entry.run(x.data(), y.data(), static_cast<int64_t>(x.size()));
    EXPECT_EQ(y[0], 1.0f) << entry.name;
    EXPECT_EQ(y[1], 1.0f);
    EXPECT_NEAR(y[2] / std::exp(static_cast<double>(88.7f)), 1.0, 0x1p-22);
    for (size_t i : {3, 4, 5}) EXPECT_EQ(y[i], infinity) << entry.name << " " << x[i];
    EXPECT_NEAR(y[6] / std::exp(static_cast<double>(-87.2f)), 1.0, 0x1p-22);
    for (size_t i : {7, 8, 9, 10}) EXPECT_EQ(y[i], 0.0f) << entry.name << " " << x[i];
    float nan = std::numeric_limits<float>::quiet_NaN();
    entry.run(&nan, &nan, 1);
    EXPECT_TRUE(std::isnan(nan)) << entry.name;
  }
}

// Lengths around the vector width, in place, without writing beyond the end; an element's result
// does not depend on its place.
TEST(Map, AwkwardLengthsInPlace) {
  for (const MapEntry& entry : map_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (int64_t n = 0; n < 35; ++n) {
      auto x = random_floats(n + 1, 11, 3.0f);
      const auto in = x;
      entry.run(x.data(), x.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        float one = 0;
        entry.run(&in[static_cast<size_t>(i)], &one, 1);
        ASSERT_EQ(x[static_cast<size_t>(i)], one) << entry.name << " n " << n << " i " << i;
      }
      ASSERT_EQ(x.back(), in.back()) << entry.name;
    }
  }
}

TEST(Zip, AwkwardLengths) {
  for (const ZipEntry& entry : zip_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (int64_t n = 0; n < 35; ++n) {
      const auto a = random_floats(n, 12), b = random_floats(n, 13);
      std::vector<float> y(static_cast<size_t>(n + 1), -77.0f);
      entry.run(a.data(), b.data(), y.data(), n);
      for (size_t i = 0; i < static_cast<size_t>(n); ++i)
        ASSERT_EQ(y[i], entry.op == ZipOp::kAdd ? a[i] + b[i] : a[i] * b[i]) << entry.name;
      ASSERT_EQ(y.back(), -77.0f) << entry.name;
    }
  }
}

TEST(RmsNorm, AgreesWithTheFormula) {
  for (const NormEntry& entry : norm_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const int64_t d : {1, 5, 8, 15, 16, 17, 64, 259}) {
      const int64_t rows = 3;
      const auto x = random_floats(rows * d, 14, 2.0f), gain = random_floats(d, 15);
      std::vector<float> y(x.size() + 1, -77.0f);
      entry.run({x.data(), gain.data(), y.data(), rows, d, 1e-5});
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < d; ++i) {
          const double v = static_cast<double>(x[static_cast<size_t>(r * d + i)]);
          sum += v * v;
        }
        const double factor = 1 / std::sqrt(sum / static_cast<double>(d) + 1e-5);
        for (int64_t i = 0; i < d; ++i) {
          const auto at = static_cast<size_t>(r * d + i);
          const double wanted = static_cast<double>(x[at]) * factor *
                                static_cast<double>(gain[static_cast<size_t>(i)]);
          ASSERT_NEAR(y[at], wanted, 1e-6 * std::fabs(wanted) + 1e-30) << entry.name << " d " << d;
        }
      }
      ASSERT_EQ(y.back(), -77.0f) << entry.name;
    }
  }
}

TEST(Rope, BothStylesPartialAndInPlace) {
  for (const RopeEntry& entry : rope_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const bool interleaved : {false, true}) {
      for (const auto& [d, rotary] :
           {std::pair<int64_t, int64_t>{2, 2}, {64, 64}, {64, 32}, {20, 14}, {80, 22}}) {
        for (const bool in_place : {false, true}) {
          const int64_t rows = 3, half = rotary / 2;
          auto x = random_floats(rows * d, 16);
          const auto in = x;
          const auto cos = random_floats(rows * half, 17), sin = random_floats(rows * half, 18);
          std::vector<float> out(x.size());
          float* y = in_place ? x.data() : out.data();
          entry.run({x.data(), cos.data(), sin.data(), y, rows, d, rotary, interleaved});
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t p = 0; p < half; ++p) {
              const int64_t i = interleaved ? 2 * p : p, j = interleaved ? 2 * p + 1 : p + half;
              const auto at = [&](int64_t k) {
                return static_cast<double>(in[static_cast<size_t>(r * d + k)]);
              };
              const double c = static_cast<double>(cos[static_cast<size_t>(r * half + p)]),
                           s = static_cast<double>(sin[static_cast<size_t>(r * half + p)]);
              ASSERT_NEAR(y[r * d + i], at(i) * c - at(j) * s, 1e-6) << entry.name;
              ASSERT_NEAR(y[r * d + j], at(j) * c + at(i) * s, 1e-6) << entry.name;
            }
            for (int64_t k = rotary; k < d; ++k)
              ASSERT_EQ(y[r * d + k], in[static_cast<size_t>(r * d + k)]) << entry.name;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pome::kernels
