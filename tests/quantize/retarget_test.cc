#include "quantize/retarget.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace pome {
namespace {

// y = x M + noise; means over some rows.
struct Streams {
  int64_t n = 0;
  Moments moments;           // of y
  std::vector<float> cross;  // (x - y) y'
  std::vector<std::vector<double>> x, y;
};
Streams streams(int64_t n, int64_t tokens, double changed, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Streams out;
  out.n = n;
  const auto size = static_cast<size_t>(n);
  std::vector<double> mix(size * size);
  for (double& v : mix) v = normal(random) / std::sqrt(static_cast<double>(n));
  out.moments.columns = n;
  out.moments.tokens = tokens;
  out.moments.second.assign(size * size, 0.0f);
  out.cross.assign(size * size, 0.0f);
  std::vector<double> second(size * size, 0.0), cross(size * size, 0.0);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> x(size), y;
    for (double& v : x) v = normal(random);
    y = x;
    for (size_t i = 0; i < size; ++i)
      for (size_t j = 0; j < size; ++j) y[j] += changed * x[i] * mix[i * size + j];
    for (size_t i = 0; i < size; ++i)
      for (size_t j = 0; j < size; ++j) {
        second[i * size + j] += y[i] * y[j] / static_cast<double>(tokens);
        cross[i * size + j] += (x[i] - y[i]) * y[j] / static_cast<double>(tokens);
      }
    out.x.push_back(x);
    out.y.push_back(y);
  }
  for (size_t i = 0; i < second.size(); ++i) {
    out.moments.second[i] = static_cast<float>(second[i]);
    out.cross[i] = static_cast<float>(cross[i]);
  }
  return out;
}
// mean |w x - v y|^2
double lost(const Streams& s, const std::vector<float>& w, const std::vector<float>& v) {
  double sum = 0;
  for (size_t t = 0; t < s.x.size(); ++t) {
    double e = 0;
    for (size_t i = 0; i < w.size(); ++i) e += w[i] * s.x[t][i] - v[i] * s.y[t][i];
    sum += e * e;
  }
  return sum / static_cast<double>(s.x.size());
}

TEST(Feedback, SolvesWhatItsFactorStandsFor) {
  for (const int64_t n : {1, 5, 64, 65, 150}) {
    const Streams s = streams(n, 400, 0.3, 7);
    const auto feedback = Feedback::create(s.moments);
    ASSERT_TRUE(feedback.ok());
    // Rows of H as damped, solved, are rows of the identity.
    std::vector<float> rows = s.moments.second;
    const float shrink = static_cast<float>(n) / static_cast<float>(n + 400);
    double trace = 0;
    for (int64_t i = 0; i < n; ++i) trace += rows[static_cast<size_t>(i * n + i)];
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        float& h = rows[static_cast<size_t>(i * n + j)];
        h = i == j ? h + static_cast<float>(0.01 * trace / static_cast<double>(n))
                   : h * (1 - shrink);
      }
    (*feedback)->solve(rows);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        ASSERT_NEAR(rows[static_cast<size_t>(i * n + j)], i == j ? 1 : 0, 2e-4) << n;
  }
}

TEST(Retarget, WhatIsMetAsItWasKeepsItsWeights) {
  const Streams s = streams(70, 300, 0, 3);
  const auto feedback = Feedback::create(s.moments);
  ThreadPool pool(2);
  for (const int64_t rows : {1, 1000}) {  // solved row by row, and once
    const Retarget same(*feedback, s.cross, rows, &pool);
    std::vector<float> w(140), out(140);
    for (size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>(i));
    same.apply(w, out);
    for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(out[i], w[i], 1e-4) << rows;
  }
}

TEST(Retarget, TheNewTargetsGiveTheOldProduct) {
  const Streams s = streams(60, 2000, 0.5, 5);
  const auto feedback = Feedback::create(s.moments);
  ThreadPool pool(2);
  std::vector<float> w(60), out(60), nothing(60, 0.0f);
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::cos(static_cast<float>(3 * i));
  for (const int64_t rows : {1, 1000}) {
    Retarget(*feedback, s.cross, rows, &pool).apply(w, out);
    EXPECT_GT(lost(s, w, w), 0.1 * lost(s, w, nothing));
    EXPECT_LT(lost(s, w, out), 0.01 * lost(s, w, nothing)) << rows;
  }
}

TEST(Retarget, FromProductsAsFromActivations) {
  // L = W D: what the products of rows lack leads to the same targets.
  const int64_t n = 70, rows = 3;
  const Streams s = streams(n, 500, 0.4, 21);
  const auto feedback = Feedback::create(s.moments);
  ThreadPool pool(2);
  std::vector<float> w(static_cast<size_t>(rows * n)), by_activations(w.size()),
      by_products(w.size());
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>(2 * i));
  Retarget(*feedback, s.cross, rows, &pool).apply(w, by_activations);
  auto lacking = std::make_shared<std::vector<float>>(w.size());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += static_cast<double>(w[static_cast<size_t>(row * n + i)]) *
               s.cross[static_cast<size_t>(i * n + j)];
      (*lacking)[static_cast<size_t>(row * n + j)] = static_cast<float>(sum);
    }
  solve_rows(**feedback, lacking.get(), &pool);
  const ConstantDataPtr data = inline_constant(Tensor::from_f32({rows, n}, w));
  ASSERT_TRUE(retargeted(data, nullptr, lacking)->read_f32(0, rows, by_products.data()).ok());
  double changed = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    EXPECT_NEAR(by_products[i], by_activations[i], 1e-4) << i;
    changed = std::max(changed, std::fabs(static_cast<double>(by_products[i] - w[i])));
  }
  EXPECT_GT(changed, 0.1);
}

TEST(Retarget, RowsOnTopOfTheTargetsGiveWhatTheyStandFor) {
  // What is lost is another product with y: the target is W* and that.
  const Streams s = streams(40, 2000, 0.5, 9);
  const auto feedback = Feedback::create(s.moments);
  ThreadPool pool(2);
  const auto by = std::make_shared<const Retarget>(*feedback, s.cross, 3, &pool);
  std::vector<float> w(120), lost(120), alone(120), both(120);
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = std::cos(static_cast<float>(3 * i));
    lost[i] = std::sin(static_cast<float>(i));
  }
  const ConstantDataPtr data = inline_constant(Tensor::from_f32({3, 40}, w));
  ASSERT_TRUE(retargeted(data, by)->read_f32(0, 3, alone.data()).ok());
  const auto rows = std::make_shared<const std::vector<float>>(lost);
  const ConstantDataPtr changed = retargeted(data, by, rows);
  ASSERT_TRUE(changed->read_f32(1, 2, both.data() + 40).ok());
  ASSERT_TRUE(changed->read_f32(0, 1, both.data()).ok());
  for (size_t i = 0; i < both.size(); ++i) EXPECT_NEAR(both[i], alone[i] + lost[i], 1e-5);
}

}  // namespace
}  // namespace pome
