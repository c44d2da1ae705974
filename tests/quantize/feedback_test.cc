#include "quantize/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "quantize/refine.h"

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
  if (trace == 0) trace = static_cast<double>(n);
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
      : grid(std::make_shared<const Levels>(Levels::of_integers(-most, most, 0)), 0, {size}, {}) {}
  uint8_t nearest(float target) const {
    float value = 0;
    return static_cast<uint8_t>(grid.nearest(0, target, &value));
  }
  float value(uint8_t level) const { return grid.value(0, level); }
  RowGrid grid;
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

// The definition, one row and one column at a time in binary64: what rows are rounded against.
struct Textbook {
  std::vector<size_t> order;
  std::vector<double> u, d;  // in that order

  Textbook(const Moments& moments, std::span<const int32_t> taken)
      : order(taken.begin(), taken.end()) {
    const auto n = static_cast<size_t>(moments.columns);
    const std::vector<double> h = damped(moments);
    u.resize(n * n);
    d.resize(n);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) u[i * n + j] = h[order[i] * n + order[j]];
    for (size_t j = n; j-- > 0;) {
      d[j] = u[j * n + j];
      for (size_t i = 0; i < j; ++i)
        for (size_t k = 0; k <= i; ++k) u[k * n + i] -= u[k * n + j] * u[i * n + j] / d[j];
      for (size_t i = 0; i < j; ++i) u[i * n + j] /= d[j];
    }
  }
  std::vector<uint8_t> round(const std::vector<float>& row, const Steps& grid,
                             bool feedback) const {
    const size_t n = order.size();
    std::vector<uint8_t> codes(n);
    std::vector<double> errors(n);
    for (size_t j = 0; j < n; ++j) {
      double target = row[order[j]];
      for (size_t i = 0; feedback && i < j; ++i) target += errors[i] * u[i * n + j];
      codes[order[j]] = grid.nearest(static_cast<float>(target));
      errors[j] = static_cast<double>(row[order[j]]) - grid.value(codes[order[j]]);
    }
    return codes;
  }
};

// Runs of 32 by their sums, halves of them likewise, columns by themselves; what is not whole last.
TEST(Feedback, TakesTheLargestColumnsFirstButBlocksAsAWhole) {
  for (const int64_t columns : {16, 150, 256}) {
    Moments moments{columns, 1000, {}};
    moments.diagonal = some_row(columns, 30);
    for (float& value : moments.diagonal) value *= value;
    const auto feedback = Feedback::create(moments, Feedback::kRun);
    ASSERT_TRUE(feedback.ok());
    const std::span<const int32_t> order = (*feedback)->order();
    const auto one_by_one = Feedback::create(moments);
    ASSERT_TRUE(one_by_one.ok());
    const std::span<const int32_t> falling = (*one_by_one)->order();
    for (size_t j = 0; j + 1 < falling.size(); ++j)
      EXPECT_GE(moments.diagonal[static_cast<size_t>(falling[j])],
                moments.diagonal[static_cast<size_t>(falling[j + 1])]);
    for (const int64_t size : {32, 16}) {
      std::vector<double> sums;
      for (int64_t at = 0; at + size <= columns; at += size) {
        const int64_t block = order[static_cast<size_t>(at)] / size;
        sums.push_back(0);
        for (int64_t j = at; j < at + size; ++j) {
          const auto column = static_cast<size_t>(order[static_cast<size_t>(j)]);
          EXPECT_EQ(static_cast<int64_t>(column) / size, block);
          sums.back() += static_cast<double>(moments.diagonal[column]);
        }
        // Halves fall within their run only.
        if (sums.size() > 1 && (size == 32 || at % 32 != 0)) {
          EXPECT_GE(sums[sums.size() - 2], sums.back());
        }
      }
    }
    for (size_t j = 0; j + 1 < order.size(); ++j)
      if (order[j] / 16 == order[j + 1] / 16) {
        EXPECT_GE(moments.diagonal[static_cast<size_t>(order[j])],
                  moments.diagonal[static_cast<size_t>(order[j + 1])]);
      }
  }
}

TEST(Feedback, TilesAndBlocksGiveTheCodesOfTheDefinition) {
  for (const int64_t columns : {1, 17, 64, 65, 150}) {
    SCOPED_TRACE(columns);
    const Moments moments = some_moments(columns, 400, 11);
    const auto feedback = Feedback::create(moments, columns == 65 ? 1 : Feedback::kRun);
    ASSERT_TRUE(feedback.ok());
    const std::vector<double> h = damped(moments);
    const Textbook book(moments, (*feedback)->order());
    const Steps grid(0.4f, 7);
    constexpr size_t kCount = 150;
    const std::vector<float> rows = some_row(columns * static_cast<int64_t>(kCount), 12);
    std::vector<uint8_t> codes(rows.size());
    (*feedback)->round(rows, std::vector<RowGrid>(kCount, grid.grid), codes);
    const auto n = static_cast<size_t>(columns);
    size_t other = 0;
    for (size_t r = 0; r < kCount; ++r) {
      const std::vector<float> row(rows.begin() + static_cast<std::ptrdiff_t>(r * n),
                                   rows.begin() + static_cast<std::ptrdiff_t>((r + 1) * n));
      std::vector<uint8_t> wanted = book.round(row, grid, true),
                           nearest = book.round(row, grid, false);
      if (form(h, errors(row, nearest, grid)) < form(h, errors(row, wanted, grid)))
        wanted = nearest;
      other += !std::equal(wanted.begin(), wanted.end(),
                           codes.begin() + static_cast<std::ptrdiff_t>(r * n));
    }
    EXPECT_LE(other, kCount / 50);  // a target in the middle between two values
  }
}

TEST(Feedback, ARowIsRoundedTheSameInAnyCompany) {
  const Moments moments = some_moments(100, 300, 13);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const Steps grid(0.4f, 7);
  const std::vector<float> rows = some_row(100 * 140, 14);
  std::vector<uint8_t> together(rows.size()), alone(rows.size());
  const std::vector<RowGrid> grids(140, grid.grid);
  (*feedback)->round(rows, grids, together);
  for (size_t first = 0, count = 1; first < 140; first += count, ++count) {
    count = std::min(count, 140 - first);
    (*feedback)->round(std::span(rows).subspan(first * 100, count * 100),
                       std::span(grids).first(count),
                       std::span(alone).subspan(first * 100, count * 100));
  }
  EXPECT_EQ(together, alone);
}

TEST(Factor, GivesTheMatrixBack) {
  for (const int64_t n : {1, 2, 63, 64, 65, 200}) {
    SCOPED_TRACE(n);
    const std::vector<double> h = damped(some_moments(n, 2 * n + 20, 15));
    ThreadPool pool(2);
    Factor factor{n, {}, {}};
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        factor.rows.push_back(
            static_cast<float>(h[static_cast<size_t>((n - 1 - i) * n + n - 1 - j)]));
    ASSERT_TRUE(factorise(0, &factor, &pool));
    const auto u = [&](int64_t i, int64_t j) -> double {
      return i == j ? 1 : factor.rows[static_cast<size_t>(j * n + i)];
    };
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_GT(factor.diagonal[static_cast<size_t>(i)], 0);
      for (int64_t j = i; j < n; ++j) {
        double sum = 0;
        for (int64_t k = j; k < n; ++k)
          sum += u(i, k) * static_cast<double>(factor.diagonal[static_cast<size_t>(k)]) * u(j, k);
        const double size =
            std::sqrt(h[static_cast<size_t>(i * n + i)] * h[static_cast<size_t>(j * n + j)]);
        EXPECT_NEAR(sum / size, h[static_cast<size_t>(i * n + j)] / size, 1e-5);
      }
    }
  }
}

TEST(Factor, RefusesWhatIsNotPositive) {
  ThreadPool pool(1);
  Factor factor{2, {1, 2, 2, 1}, {}};
  EXPECT_FALSE(factorise(0, &factor, &pool));
}

TEST(Feedback, WhatItReportsIsWhatTheCodesCost) {
  for (const int64_t columns : {1, 32, 65, 150}) {
    const Moments moments = some_moments(columns, 10 * columns, 3);
    const auto feedback = Feedback::create(moments);
    ASSERT_TRUE(feedback.ok());
    const std::vector<double> h = damped(moments);
    const Steps grid(0.4f, 7);
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const std::vector<float> row = some_row(columns, seed);
      std::vector<uint8_t> codes(row.size());
      const double cost = (*feedback)->round(row, std::span(&grid.grid, 1), codes);
      EXPECT_NEAR(cost / form(h, errors(row, codes, grid)), 1, 1e-6) << columns << " " << seed;
    }
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
    for (size_t i = 0; i < row.size(); ++i) nearest[i] = grid.nearest(row[i]);
    const double cost = (*feedback)->round(row, std::span(&grid.grid, 1), codes);
    const double before = (*feedback)->cost(errors(row, nearest, grid));
    EXPECT_LE(cost, before * (1 + 1e-6));
    fed += cost;
    plain += before;
  }
  EXPECT_LT(fed, 0.8 * plain);
}

// Whatever the order in which columns are taken, and whether H comes as a matrix or as a diagonal.
TEST(Feedback, WithoutCorrelationItRoundsToTheNearest) {
  constexpr size_t kColumns = 150, kCount = 3;
  std::vector<float> rising(kColumns), falling(kColumns), mixed(kColumns);
  for (size_t i = 0; i < kColumns; ++i) {
    rising[i] = falling[kColumns - 1 - i] = static_cast<float>(i + 1);
    mixed[i] = static_cast<float>(i * 37 % kColumns);
  }
  const Steps grid(0.3f, 7);
  const std::vector<float> rows = some_row(kColumns * kCount, 5);
  std::vector<uint8_t> nearest;
  for (const float value : rows) nearest.push_back(grid.nearest(value));
  const std::vector<float> lost = errors(rows, nearest, grid);
  for (const std::vector<float>& diagonal : {rising, falling, mixed})
    for (const bool whole : {false, true})
      for (const int64_t run : {int64_t{1}, Feedback::kRun}) {
        Moments moments{kColumns, 1000, {}};
        if (whole) moments.second.assign(kColumns * kColumns, 0.0f);
        for (size_t i = 0; whole && i < kColumns; ++i)
          moments.second[(kColumns + 1) * i] = diagonal[i];
        if (!whole) moments.diagonal = diagonal;
        const auto feedback = Feedback::create(moments, run);
        ASSERT_TRUE(feedback.ok());
        std::vector<uint8_t> codes(rows.size());
        const double cost =
            (*feedback)->round(rows, std::vector<RowGrid>(kCount, grid.grid), codes);
        EXPECT_EQ(codes, nearest) << whole << " " << run;
        const double damping = 0.01 * std::accumulate(diagonal.begin(), diagonal.end(), 0.0) /
                               static_cast<double>(kColumns);
        double expected = 0;
        for (size_t i = 0; i < rows.size(); ++i)
          expected += (diagonal[i % kColumns] + damping) * lost[i] * lost[i];
        EXPECT_NEAR(cost / expected, 1, 1e-6) << whole << " " << run;
      }
}

TEST(Feedback, OneColumnIsRoundedToTheNearest) {
  const Steps grid(0.3f, 7);
  for (const float square : {0.0f, 1e-6f, 3.0f, 1e6f}) {
    const auto feedback = Feedback::create(Moments{1, 50, {square}});
    ASSERT_TRUE(feedback.ok());
    const double counts = square > 0 ? 1.01 * static_cast<double>(square) : 0.01;
    for (const float value : {-9.0f, -0.4f, 0.0f, 0.29f, 1.7f}) {
      uint8_t code = 0xFF;
      const double cost =
          (*feedback)->round(std::span(&value, 1), std::span(&grid.grid, 1), std::span(&code, 1));
      EXPECT_EQ(code, grid.nearest(value)) << square << " " << value;
      const double lost = static_cast<double>(value) - grid.value(code);
      EXPECT_NEAR(cost, counts * lost * lost, 1e-6 * counts * lost * lost)
          << square << " " << value;
    }
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
        tried[static_cast<size_t>(i)] = static_cast<uint8_t>(rest % 3);
      best = std::min(best, (*feedback)->cost(errors(row, tried, grid)));
    }
    EXPECT_GE(cost, best * (1 - 1e-6));
    fed += cost;
    best_of_all += best;
  }
  EXPECT_LT(fed, 1.5 * best_of_all);
}

// Of rank 0, 1 and 3; with columns that are always alike, and one that is always zero.
TEST(Feedback, MomentsThatHaveNoFullRankHaveAFactor) {
  std::vector<Moments> all = {some_moments(24, 1, 7),
                              some_moments(24, 3, 7),
                              some_moments(24, 200, 7),
                              {24, 0, std::vector<float>(576, 0.0f)}};
  for (size_t i = 0; i < 24; ++i) {
    std::vector<float>& h = all[2].second;
    h[24 * i + 5] = h[24 * i + 4];
    h[24 * i + 9] = 0;
  }
  for (size_t i = 0; i < 24; ++i) {
    std::vector<float>& h = all[2].second;
    h[24 * 5 + i] = h[24 * 4 + i];
    h[24 * 9 + i] = 0;
  }
  const Steps grid(0.4f, 7);
  for (size_t which = 0; which < all.size(); ++which) {
    SCOPED_TRACE(which);
    const auto feedback = Feedback::create(all[which]);
    ASSERT_TRUE(feedback.ok());
    for (const float weight : (*feedback)->weights()) {
      EXPECT_GT(weight, 0);
      EXPECT_TRUE(std::isfinite(weight));
    }
    const std::vector<double> h = damped(all[which]);
    for (uint32_t seed = 0; seed < 10; ++seed) {
      const std::vector<float> row = some_row(24, seed);
      std::vector<uint8_t> codes(row.size());
      const double cost = (*feedback)->round(row, std::span(&grid.grid, 1), codes);
      EXPECT_NEAR(cost / form(h, errors(row, codes, grid)), 1, 1e-6);
    }
  }
}

TEST(Feedback, InfiniteMomentsAreRefused) {
  Moments moments = some_moments(4, 50, 8);
  moments.second[6] = std::numeric_limits<float>::infinity();
  const auto feedback = Feedback::create(moments);
  ASSERT_FALSE(feedback.ok());
  EXPECT_EQ(feedback.status().code(), StatusCode::kBadInput);
}

// Every round against the form itself, until nothing is left; what all codes could do is a bound.
TEST(Refine, FallsByWhatItSaysAndStaysAboveTheBest) {
  const auto moments = std::make_shared<const Moments>(some_moments(5, 400, 21));
  const auto feedback = Feedback::create_with_form(moments);
  ASSERT_TRUE(feedback.ok());
  const std::vector<double> h = damped(*moments);
  const Steps grid(0.9f, 1);
  double fed = 0, refined = 0, best_of_all = 0;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const std::vector<float> row = some_row(5, seed);
    std::vector<uint8_t> levels(5);
    (*feedback)->round(row, std::span(&grid.grid, 1), levels);
    double cost = form(h, errors(row, levels, grid));
    fed += cost;
    for (int round = 0; round < 4; ++round) {
      const double gain =
          refine_levels(*(*feedback)->form(), row, std::span(&grid.grid, 1), levels);
      const double now = form(h, errors(row, levels, grid));
      EXPECT_GE(gain, 0);
      EXPECT_NEAR(now, cost - gain, 1e-4 * cost);
      cost = now;
    }
    refined += cost;
    double best = std::numeric_limits<double>::infinity();
    for (int choice = 0; choice < 243; ++choice) {
      std::vector<uint8_t> tried(5);
      for (int i = 0, rest = choice; i < 5; ++i, rest /= 3)
        tried[static_cast<size_t>(i)] = static_cast<uint8_t>(rest % 3);
      best = std::min(best, form(h, errors(row, tried, grid)));
    }
    EXPECT_GE(cost, best * (1 - 1e-6));
    best_of_all += best;
  }
  EXPECT_LT(refined, fed);
  EXPECT_LT(refined, 1.25 * best_of_all);
}

// More columns than are refined at a time, and rows that must not see each other.
TEST(Refine, HoldsAcrossBlocksAndRows) {
  constexpr size_t kColumns = 300, kCount = 20;
  const auto moments = std::make_shared<const Moments>(some_moments(kColumns, 700, 22));
  const auto feedback = Feedback::create_with_form(moments);
  ASSERT_TRUE(feedback.ok());
  const std::vector<double> h = damped(*moments);
  const Steps grid(0.4f, 7);
  const std::vector<RowGrid> grids(kCount, grid.grid);
  const std::vector<float> rows = some_row(kColumns * kCount, 23);
  std::vector<uint8_t> levels(rows.size());
  double cost = (*feedback)->round(rows, grids, levels);
  std::vector<uint8_t> alone = levels;
  const double gain = refine_levels(*(*feedback)->form(), rows, grids, levels);
  EXPECT_GT(gain, 1e-3 * cost);
  double now = 0;
  for (size_t r = 0; r < kCount; ++r) {
    const std::vector<float> row(rows.begin() + r * kColumns, rows.begin() + (r + 1) * kColumns);
    const std::vector<uint8_t> part(levels.begin() + r * kColumns,
                                    levels.begin() + (r + 1) * kColumns);
    now += form(h, errors(row, part, grid));
    refine_levels(*(*feedback)->form(), row, std::span(grids).first(1),
                  std::span(alone).subspan(r * kColumns, kColumns));
  }
  EXPECT_NEAR(now, cost - gain, 1e-4 * cost);
  EXPECT_EQ(levels, alone);
}

}  // namespace
}  // namespace pome
