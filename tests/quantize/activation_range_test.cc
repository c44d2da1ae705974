#include "quantize/activation_range.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tensor/half.h"

namespace pome {
namespace {

ActivationHistogram histogram_of(const std::vector<float>& values) {
  ActivationHistogram out;
  // In pieces, as they come.
  for (size_t i = 0; i < values.size(); i += 1000)
    out.add(std::span(values).subspan(i, std::min<size_t>(1000, values.size() - i)));
  return out;
}
std::vector<float> normal(size_t count, float spread, float mean = 0) {
  std::mt19937 random(7);
  std::normal_distribution<float> of(mean, spread);
  std::vector<float> out(count);
  for (float& value : out) value = round_to_f16(of(random));
  return out;
}
GridError by_hand(const std::vector<float>& values, const ActivationGrid& grid) {
  double error = 0, square = 0;
  for (const float x : values) {
    const double off = static_cast<double>(x) - static_cast<double>(value_on(grid, x));
    error += off * off;
    square += static_cast<double>(x) * static_cast<double>(x);
  }
  return {error / square, 0};
}

TEST(ActivationRange, GridsRoundAsTheOperationsSay) {
  const ActivationGrid around{0.5f, 0, false};
  EXPECT_EQ(value_on(around, 0.25f), 0.0f);  // halves to the even code
  EXPECT_EQ(value_on(around, 0.75f), 1.0f);
  EXPECT_EQ(value_on(around, -1e6f), -64.0f);
  EXPECT_EQ(value_on(around, 1e6f), 63.5f);
  const ActivationGrid affine{0.5f, 10, true};
  EXPECT_EQ(value_on(affine, -100), -5.0f);
  EXPECT_EQ(value_on(affine, 1e6f), 122.5f);
}

TEST(ActivationRange, MinMaxReachesTheLargest) {
  const auto grid = fit_grid(histogram_of({0.1f, -3.0f, 2.0f, 0.0f}), RangeMethod::kMinMax);
  ASSERT_TRUE(grid);
  EXPECT_FALSE(grid->is_affine);
  EXPECT_EQ(grid->scale, round_to_f16(3.0f / 127));
  EXPECT_NEAR(value_on(*grid, -3), -3, 0.01);
}

TEST(ActivationRange, OneSidedValuesAreAffine) {
  std::vector<float> values = normal(20000, 1);
  for (float& value : values) value = std::max(value, -0.125f);
  const auto grid = fit_grid(histogram_of(values), RangeMethod::kMinMax);
  ASSERT_TRUE(grid);
  EXPECT_TRUE(grid->is_affine);
  EXPECT_GT(grid->zero_point, 0);
  EXPECT_EQ(value_on(*grid, 0), 0.0f);
  const auto around = fit_grid(histogram_of(normal(20000, 1)), RangeMethod::kMinMax);
  ASSERT_TRUE(around);
  EXPECT_FALSE(around->is_affine);
}

TEST(ActivationRange, ErrorsAreThoseOfTheValuesThemselves) {
  const std::vector<float> values = normal(30000, 0.7f);
  const ActivationHistogram histogram = histogram_of(values);
  EXPECT_EQ(histogram.count(), values.size());
  for (const ActivationGrid& grid :
       {ActivationGrid{0.02f, 0, false}, ActivationGrid{0.001f, 0, false},
        ActivationGrid{0.02f, 100, true}}) {
    const double wanted = by_hand(values, grid).all;
    EXPECT_NEAR(error_of(histogram, grid).all, wanted, 1e-9 + 1e-6 * wanted);
  }
}

TEST(ActivationRange, ClippingPaysWhereFewValuesAreLarge) {
  std::vector<float> values = normal(200000, 1);
  for (size_t i = 0; i < 8; ++i) values[i * 1000] = i % 2 == 0 ? 60.0f : -60.0f;
  const ActivationHistogram histogram = histogram_of(values);
  const auto all = fit_grid(histogram, RangeMethod::kMinMax);
  const auto most = fit_grid(histogram, RangeMethod::kPercentile);
  const auto entropy = fit_grid(histogram, RangeMethod::kEntropy);
  ASSERT_TRUE(all && most && entropy);
  EXPECT_NEAR(all->scale, 60.0f / 127, 1e-3);
  EXPECT_LT(most->scale, 5.0f / 127);
  EXPECT_GT(most->scale, 3.0f / 127);
  EXPECT_LT(entropy->scale, 20.0f / 127);
  EXPECT_GT(entropy->scale, 2.0f / 127);
  EXPECT_LT(error_of(histogram, *entropy).typical, error_of(histogram, *all).typical);
}

TEST(ActivationRange, TakesWhatIsGoodEnoughAndSaysWhatIsNot) {
  const ActivationChoice plain = choose_grid(histogram_of(normal(50000, 1)), RangeMethod::kMinMax);
  EXPECT_TRUE(plain.grid);
  EXPECT_EQ(plain.method, RangeMethod::kMinMax);
  EXPECT_EQ(plain.reason, "");

  // One of a hundred thousand is larger by a thousand: either it or all others would be lost.
  std::vector<float> values = normal(100000, 1);
  values[5] = 1500;
  const ActivationChoice wide = choose_grid(histogram_of(values), RangeMethod::kMinMax);
  EXPECT_FALSE(wide.grid);
  EXPECT_NE(wide.reason.find("too wide"), std::string::npos) << wide.reason;

  // Clipping would cost much, all in all steps are still fine enough: another method is taken.
  values = normal(200000, 1);
  for (size_t i = 0; i < 10; ++i) values[i * 999] = i % 2 == 0 ? 40.0f : -40.0f;
  const ActivationChoice other = choose_grid(histogram_of(values), RangeMethod::kPercentile);
  EXPECT_TRUE(other.grid);
  EXPECT_EQ(other.method, RangeMethod::kMinMax);
  EXPECT_NE(other.reason.find("percentile"), std::string::npos) << other.reason;

  EXPECT_FALSE(choose_grid(ActivationHistogram(), RangeMethod::kMinMax).grid);
  const ActivationChoice tiny = choose_grid(histogram_of({1e-4f, -2e-4f}), RangeMethod::kMinMax);
  EXPECT_FALSE(tiny.grid);
  EXPECT_NE(tiny.reason.find("scale"), std::string::npos) << tiny.reason;
  const ActivationChoice damaged =
      choose_grid(histogram_of({1, std::numeric_limits<float>::quiet_NaN()}), RangeMethod::kMinMax);
  EXPECT_FALSE(damaged.grid);
}

TEST(ActivationRange, InfinityCountsAsTheLargestValue) {
  const auto grid =
      fit_grid(histogram_of({1, std::numeric_limits<float>::infinity()}), RangeMethod::kMinMax);
  ASSERT_TRUE(grid);
  EXPECT_TRUE(std::isfinite(grid->scale));
}

TEST(ActivationRange, NamesOfMethods) {
  for (const char* name : {"minmax", "percentile", "entropy"}) {
    const auto method = parse_range_method(name);
    ASSERT_TRUE(method) << name;
    EXPECT_EQ(to_string(*method), name);
  }
  EXPECT_FALSE(parse_range_method("mse"));
}

}  // namespace
}  // namespace pome
