#include "quantize/kmeans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "tensor/half.h"

namespace pome {
namespace {

constexpr KMeansMethod kAll[] = {KMeansMethod::kDivideAndConquer, KMeansMethod::kLagrangian,
                                 KMeansMethod::kCoarse};

struct Points {
  std::vector<double> values, weights;
};

// Distinct binary16 values of `count` draws with how often each came.
Points histogram(int count, uint32_t seed, const std::function<double(std::mt19937&)>& draw) {
  std::mt19937 random(seed);
  std::map<double, double> counts;
  for (int i = 0; i < count; ++i) counts[round_to_f16(static_cast<float>(draw(random)))] += 1;
  Points points;
  for (const auto& [value, weight] : counts) {
    points.values.push_back(value);
    points.weights.push_back(weight);
  }
  return points;
}
Points gauss(int count, uint32_t seed, double sigma = 1) {
  return histogram(count, seed, [sigma](std::mt19937& random) {
    return std::normal_distribution<double>(0, sigma)(random);
  });
}
Points heavy(int count, uint32_t seed) {
  return histogram(count, seed, [](std::mt19937& random) {
    return 0.02 * std::student_t_distribution<double>(3)(random);
  });
}

// What nearest assignment to the centroids costs: does not trust the cost that was reported.
double cost_of(const Points& points, const std::vector<double>& centroids) {
  double cost = 0;
  for (size_t i = 0; i < points.values.size(); ++i) {
    double best = INFINITY;
    for (const double c : centroids) {
      best = std::min(best, (points.values[i] - c) * (points.values[i] - c));
    }
    cost += points.weights[i] * best;
  }
  return cost;
}

double interval_cost(const Points& points, size_t from, size_t to) {
  double w = 0, wv = 0, cost = 0;
  for (size_t i = from; i < to; ++i) {
    w += points.weights[i];
    wv += points.weights[i] * points.values[i];
  }
  if (w == 0) return 0;
  for (size_t i = from; i < to; ++i) {
    cost += points.weights[i] * std::pow(points.values[i] - wv / w, 2);
  }
  return cost;
}

// Over all partitions into at most k intervals.
double brute_force(const Points& points, size_t from, int k) {
  if (from == points.values.size()) return 0;
  if (k == 0) return INFINITY;
  double best = INFINITY;
  for (size_t to = from + 1; to <= points.values.size(); ++to) {
    best = std::min(best, interval_cost(points, from, to) + brute_force(points, to, k - 1));
  }
  return best;
}

TEST(KMeans, EqualsBruteForceOnTinyCases) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const size_t n = 1 + random() % 14;
    const int k = 1 + static_cast<int>(random() % 5);
    std::map<double, double> drawn;
    // Small integers, so that equal gaps and equal costs are common; every fourth weight is zero.
    while (drawn.size() < n) {
      drawn[static_cast<double>(random() % 40)] = random() % 4 == 0 ? 0 : 1 + random() % 3;
    }
    Points points;
    for (const auto& [value, weight] : drawn) {
      points.values.push_back(value);
      points.weights.push_back(weight);
    }
    const double optimum = brute_force(points, 0, k);
    for (const KMeansMethod method : kAll) {
      const Clustering found = kmeans(points.values, points.weights, k, method);
      ASSERT_LE(found.centroids.size(), static_cast<size_t>(k));
      ASSERT_TRUE(std::is_sorted(found.centroids.begin(), found.centroids.end()));
      const double cost = found.centroids.empty() ? 0 : cost_of(points, found.centroids);
      // kCoarse may merge values, but below 4 k distinct ones it does not.
      ASSERT_NEAR(cost, optimum, 1e-9 * (1 + optimum)) << "round " << round;
      ASSERT_NEAR(found.cost, optimum, 1e-9 * (1 + optimum)) << "round " << round;
    }
  }
}

TEST(KMeans, ExactMethodsAgreeAndCoarseIsClose) {
  for (const Points& points : {gauss(32768, 1, 0.02), heavy(32768, 2), heavy(3000, 3)}) {
    for (const int k : {2, 4, 8, 16, 64, 256}) {
      const double divide =
          kmeans(points.values, points.weights, k, KMeansMethod::kDivideAndConquer).cost;
      const double priced =
          kmeans(points.values, points.weights, k, KMeansMethod::kLagrangian).cost;
      EXPECT_NEAR(priced, divide, 1e-10 * divide) << k;
      const double coarse = kmeans(points.values, points.weights, k, KMeansMethod::kCoarse).cost;
      EXPECT_GE(coarse, divide * (1 - 1e-10)) << k;
      if (k <= 16) {
        EXPECT_LE(coarse, divide * 1.0005) << k;
      }
    }
  }
}

TEST(KMeans, ReportedCostIsTheCostOfTheCentroids) {
  const Points points = heavy(20000, 4);
  for (const KMeansMethod method : kAll) {
    const Clustering found = kmeans(points.values, points.weights, 16, method);
    EXPECT_NEAR(found.cost, cost_of(points, found.centroids), 1e-9 * found.cost);
  }
}

TEST(KMeans, LloydMaxConstants) {
  // Max (1960) for the unit normal; the unit Laplace values are those of its companding literature.
  const Points normal = gauss(1000000, 5);
  const Points laplace = histogram(1000000, 6, [](std::mt19937& random) {
    const double magnitude = std::exponential_distribution<double>(std::sqrt(2.0))(random);
    return random() % 2 == 0 ? magnitude : -magnitude;
  });
  const struct {
    int k;
    double normal, laplace;
  } expected[] = {{4, 0.1175, 0.1762}, {8, 0.03454, 0.0545}, {16, 0.009497, 0.0154}};
  for (const auto& row : expected) {
    for (const KMeansMethod method : {KMeansMethod::kCoarse, KMeansMethod::kLagrangian}) {
      EXPECT_NEAR(kmeans(normal.values, normal.weights, row.k, method).cost / 1e6, row.normal,
                  0.01 * row.normal);
      EXPECT_NEAR(kmeans(laplace.values, laplace.weights, row.k, method).cost / 1e6, row.laplace,
                  0.015 * row.laplace);
    }
  }
}

TEST(KMeans, CostIsNonIncreasingAndConvexInK) {
  const Points points = heavy(4000, 8);
  std::vector<double> cost = {INFINITY};
  for (int k = 1; k <= 24; ++k) {
    cost.push_back(kmeans(points.values, points.weights, k, KMeansMethod::kDivideAndConquer).cost);
  }
  for (size_t k = 2; k + 1 < cost.size(); ++k) {
    EXPECT_LE(cost[k], cost[k - 1]);
    EXPECT_LE(cost[k] - cost[k + 1], (cost[k - 1] - cost[k]) * (1 + 1e-9)) << k;
  }
}

TEST(KMeans, AsManyCentroidsAsValuesCostNothing) {
  const Points points = {{-3, -1, 0, 0.5, 7}, {1, 2, 0, 1, 5}};
  for (const KMeansMethod method : kAll) {
    for (const int k : {4, 5, 100}) {
      const Clustering found = kmeans(points.values, points.weights, k, method);
      EXPECT_EQ(found.centroids, (std::vector<double>{-3, -1, 0.5, 7}));
      EXPECT_EQ(found.cost, 0);
    }
  }
  EXPECT_TRUE(kmeans({}, {}, 4, KMeansMethod::kCoarse).centroids.empty());
}

TEST(KMeans, Equivariance) {
  const Points points = heavy(20000, 9);
  for (const KMeansMethod method : kAll) {
    const Clustering base = kmeans(points.values, points.weights, 16, method);
    Points scaled = points, mirrored = points, doubled = points;
    for (double& v : scaled.values) v *= 0.25;
    std::reverse(mirrored.values.begin(), mirrored.values.end());
    for (double& v : mirrored.values) v = -v;
    std::reverse(mirrored.weights.begin(), mirrored.weights.end());
    for (double& w : doubled.weights) w *= 2;
    // A power of two changes no mantissa, so the result is exactly the scaled one.
    const Clustering quarter = kmeans(scaled.values, scaled.weights, 16, method);
    for (size_t a = 0; a < 16; ++a) EXPECT_EQ(quarter.centroids[a], base.centroids[a] / 4);
    EXPECT_EQ(quarter.cost, base.cost / 16);
    EXPECT_NEAR(kmeans(mirrored.values, mirrored.weights, 16, method).cost, base.cost,
                (method == KMeansMethod::kCoarse ? 1e-3 : 1e-10) * base.cost);
    EXPECT_NEAR(kmeans(doubled.values, doubled.weights, 16, method).cost, 2 * base.cost,
                1e-9 * base.cost);
  }
}

// Multiples of 2^-9 stay what they are when a whole number is added: only sums are rounded.
TEST(KMeans, ShiftedValuesHaveShiftedCentroids) {
  const Points points = histogram(20000, 12, [](std::mt19937& random) {
    return std::round(0x1p9 * std::normal_distribution<double>()(random)) * 0x1p-9;
  });
  for (const KMeansMethod method : kAll) {
    for (const int k : {4, 16, 64}) {
      const Clustering base = kmeans(points.values, points.weights, k, method);
      for (const double shift : {-3.0, 1024.0}) {
        Points shifted = points;
        for (double& v : shifted.values) v += shift;
        const Clustering found = kmeans(shifted.values, shifted.weights, k, method);
        ASSERT_EQ(found.centroids.size(), base.centroids.size());
        for (size_t a = 0; a < base.centroids.size(); ++a)
          EXPECT_NEAR(found.centroids[a], base.centroids[a] + shift, 1e-9) << k << " " << shift;
        EXPECT_NEAR(found.cost, base.cost, 1e-9 * base.cost) << k << " " << shift;
      }
    }
  }
}

TEST(KMeans, EqualGapsAndEqualWeights) {
  // Every price that gives k clusters may be a single number: the exact method must still end.
  Points points;
  for (int i = 0; i < 960; ++i) {
    points.values.push_back(i);
    points.weights.push_back(1);
  }
  for (const int k : {3, 7, 16, 64, 100}) {
    const double exact =
        kmeans(points.values, points.weights, k, KMeansMethod::kDivideAndConquer).cost;
    const Clustering priced = kmeans(points.values, points.weights, k, KMeansMethod::kLagrangian);
    EXPECT_EQ(priced.centroids.size(), static_cast<size_t>(k));
    EXPECT_NEAR(priced.cost, exact, 1e-9 * exact);
  }
}

TEST(KMeans, OneOutlierTakesOneCentroid) {
  Points points = gauss(5000, 10, 0.01);
  points.values.push_back(60000);
  points.weights.push_back(1);
  for (const KMeansMethod method : kAll) {
    const Clustering found = kmeans(points.values, points.weights, 8, method);
    EXPECT_EQ(found.centroids.back(), 60000);
    EXPECT_LT(cost_of(points, found.centroids), 5000 * 0.01 * 0.01 * 0.06);
  }
}

}  // namespace
}  // namespace pome
