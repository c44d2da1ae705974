#include "quantize/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace pome {
namespace {

// Second moments of random activations with a few large columns, correlated.
Moments some_moments(int64_t columns, int64_t tokens, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> second(static_cast<size_t>(columns * columns), 0.0), mix(second);
  for (double& m : mix) m = normal(random);
  std::vector<double> z(static_cast<size_t>(columns)), x(z);
  for (int64_t t = 0; t < tokens; ++t) {
    for (double& v : z) v = normal(random);
    for (int64_t i = 0; i < columns; ++i) {
      x[static_cast<size_t>(i)] = 2 * z[static_cast<size_t>(i)];
      for (int64_t j = 0; j < columns; ++j)
        x[static_cast<size_t>(i)] +=
            mix[static_cast<size_t>(i * columns + j)] * z[static_cast<size_t>(j)] / (1.0 + j);
      if (i % 7 == 3) x[static_cast<size_t>(i)] *= 8;
    }
    for (int64_t i = 0; i < columns; ++i)
      for (int64_t j = 0; j < columns; ++j)
        second[static_cast<size_t>(i * columns + j)] +=
            x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)] / static_cast<double>(tokens);
  }
  Moments out{columns, tokens, {}};
  out.second.assign(second.begin(), second.end());
  return out;
}

// H as feedback.h says, with the damping that suffices for positive definite moments.
std::vector<double> damped(const Moments& moments) {
  const int64_t n = moments.columns;
  double trace = 0;
  for (int64_t i = 0; i < n; ++i) trace += moments.second[static_cast<size_t>(i * n + i)];
  const double shrink =
      std::min(0.5, static_cast<double>(n) / static_cast<double>(n + moments.tokens));
  std::vector<double> h(moments.second.begin(), moments.second.end());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      (i == j ? h[static_cast<size_t>(i * n + j)] += 0.01 * trace / static_cast<double>(n)
              : h[static_cast<size_t>(i * n + j)] *= 1 - shrink);
  return h;
}
double form(const std::vector<double>& h, const std::vector<float>& e) {
  double sum = 0;
  for (size_t i = 0; i < e.size(); ++i)
    for (size_t j = 0; j < e.size(); ++j)
      sum += h[i * e.size() + j] * static_cast<double>(e[i]) * static_cast<double>(e[j]);
  return sum;
}

// Steps on both sides of zero, with codes in two's complement.
struct Steps {
  Steps(float size, int most)
      : grid(std::make_shared<const Levels>(Levels::of_integers(-most, most, 0)), 1 << 20, {size},
             {}),
        step(size) {}
  uint8_t nearest(int64_t column, float target, float* value) const {
    return grid.nearest(column, target, value);
  }
  float value(uint8_t code) const { return static_cast<float>(static_cast<int8_t>(code)) * step; }
  RowGrid grid;
  float step;
};

std::vector<float> some_row(int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(static_cast<size_t>(columns));
  for (float& v : row) v = normal(random);
  return row;
}
std::vector<float> errors(const std::vector<float>& row, const std::vector<uint8_t>& codes,
                          const Steps& grid) {
  std::vector<float> out(row.size());
  for (size_t i = 0; i < row.size(); ++i) out[i] = row[i] - grid.value(codes[i]);
  return out;
}

TEST(Feedback, CostIsTheQuadraticForm) {
  for (const int64_t columns : {1, 2, 5, 33}) {
    const Moments moments = some_moments(columns, 200, 1);
    const auto feedback = Feedback::create(moments);
    ASSERT_TRUE(feedback.ok());
    const std::vector<double> h = damped(moments);
    const std::vector<float> e = some_row(columns, 2);
    EXPECT_NEAR((*feedback)->cost(e) / form(h, e), 1, 1e-5) << columns;
  }
}

TEST(Feedback, WhatItReportsIsWhatTheCodesCost) {
  const Moments moments = some_moments(32, 300, 3);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const std::vector<double> h = damped(moments);
  const Steps grid(0.4f, 7);
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> row = some_row(32, seed);
    std::vector<uint8_t> codes(row.size());
    const double cost = (*feedback)->round(row, std::span(&grid.grid, 1), codes);
    EXPECT_NEAR(cost / form(h, errors(row, codes, grid)), 1, 1e-4);
  }
}

TEST(Feedback, NeverCostsMoreThanNearestValuesAndOftenLess) {
  const Moments moments = some_moments(48, 500, 4);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const Steps grid(0.4f, 7);
  double fed = 0, plain = 0;
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> row = some_row(48, seed);
    std::vector<uint8_t> codes(row.size()), nearest(row.size());
    for (size_t i = 0; i < row.size(); ++i) {
      float value = 0;
      nearest[i] = grid.nearest(static_cast<int64_t>(i), row[i], &value);
    }
    const double cost = (*feedback)->round(row, std::span(&grid.grid, 1), codes);
    const double before = (*feedback)->cost(errors(row, nearest, grid));
    EXPECT_LE(cost, before * (1 + 1e-6));
    fed += cost;
    plain += before;
  }
  EXPECT_LT(fed, 0.8 * plain);
}

TEST(Feedback, WithoutCorrelationItRoundsToTheNearest) {
  Moments moments{16, 1000, std::vector<float>(256, 0.0f)};
  for (size_t i = 0; i < 16; ++i) moments.second[17 * i] = static_cast<float>(i + 1);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const Steps grid(0.3f, 7);
  const std::vector<float> row = some_row(16, 5);
  std::vector<uint8_t> codes(16);
  (*feedback)->round(row, std::span(&grid.grid, 1), codes);
  for (size_t i = 0; i < 16; ++i) {
    float value = 0;
    EXPECT_EQ(codes[i], grid.nearest(static_cast<int64_t>(i), row[i], &value));
  }
}

// Three levels, five columns: all 243 choices.
TEST(Feedback, IsNotBetterThanTheBestAndNearIt) {
  const Moments moments = some_moments(5, 400, 6);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const Steps grid(0.9f, 1);
  double fed = 0, best_of_all = 0;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const std::vector<float> row = some_row(5, seed);
    std::vector<uint8_t> codes(5);
    const double cost = (*feedback)->round(row, std::span(&grid.grid, 1), codes);
    double best = std::numeric_limits<double>::infinity();
    for (int choice = 0; choice < 243; ++choice) {
      std::vector<uint8_t> tried(5);
      for (int i = 0, rest = choice; i < 5; ++i, rest /= 3)
        tried[static_cast<size_t>(i)] = static_cast<uint8_t>(rest % 3 - 1);
      best = std::min(best, (*feedback)->cost(errors(row, tried, grid)));
    }
    EXPECT_GE(cost, best * (1 - 1e-6));
    fed += cost;
    best_of_all += best;
  }
  EXPECT_LT(fed, 1.5 * best_of_all);
}

TEST(Feedback, MomentsOfFewTokensAndOfNoneHaveAFactor) {
  for (const int64_t tokens : {1, 3}) {
    const auto feedback = Feedback::create(some_moments(24, tokens, 7));
    ASSERT_TRUE(feedback.ok()) << tokens;
    for (const float weight : (*feedback)->weights()) EXPECT_GT(weight, 0);
  }
  const Moments none{8, 0, std::vector<float>(64, 0.0f)};
  EXPECT_TRUE(Feedback::create(none).ok());
}

TEST(Feedback, InfiniteMomentsAreRefused) {
  Moments moments = some_moments(4, 50, 8);
  moments.second[6] = std::numeric_limits<float>::infinity();
  const auto feedback = Feedback::create(moments);
  ASSERT_FALSE(feedback.ok());
  EXPECT_EQ(feedback.status().code(), StatusCode::kBadInput);
}

}  // namespace
}  // namespace pome
