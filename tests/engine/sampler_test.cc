#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace pome {
namespace {

SamplerOptions with(double temperature, uint64_t seed = 0) {
  SamplerOptions options;
  options.temperature = temperature;
  options.seed = seed;
  return options;
}

// Which ids come up in many draws.
std::set<int32_t> drawn(const SamplerOptions& options, const std::vector<float>& logits) {
  Sampler sampler(options);
  std::set<int32_t> out;
  for (int i = 0; i < 4000; ++i) out.insert(sampler.sample(logits, {}));
  return out;
}
std::vector<float> logs(std::vector<double> probabilities) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler(with(0));
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 5, 3, 5}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-2, -1, -1}, {}), 1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(sampler.sample(std::vector<float>{nan, -3, nan}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-INFINITY, -INFINITY}, {}), 0);
}

TEST(Sampler, FirstDrawsOfASeedNeverChange) {
  const std::vector<float> flat(1000, 0.0f);
  std::vector<int32_t> ids;
  Sampler sampler(with(1.0, 42));
  for (int i = 0; i < 8; ++i) ids.push_back(sampler.sample(flat, {}));
  // floor(1000 u): u from xoshiro256** seeded by splitmix64 with 42.
  EXPECT_EQ(ids, (std::vector<int32_t>{83, 378, 680, 924, 991, 769, 719, 850}));
  Sampler again(with(1.0, 42)), other(with(1.0, 43));
  std::vector<int32_t> repeated, different;
  for (int i = 0; i < 8; ++i) {
    repeated.push_back(again.sample(flat, {}));
    different.push_back(other.sample(flat, {}));
  }
  EXPECT_EQ(repeated, ids);
  EXPECT_NE(different, ids);
}

TEST(Sampler, FrequenciesFollowTheProbabilities) {
  const std::vector<double> p = {0.5, 0.3, 0.15, 0.05};
  Sampler sampler(with(1.0, 1));
  std::map<int32_t, int> counts;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.sample(logs(p), {})];
  for (size_t id = 0; id < p.size(); ++id) {
    // Five standard deviations.
    const double spread = 5 * std::sqrt(p[id] * (1 - p[id]) / kDraws);
    EXPECT_NEAR(counts[static_cast<int32_t>(id)] / static_cast<double>(kDraws), p[id], spread);
  }
  // Temperature 1/2 squares the probabilities.
  Sampler cold(with(0.5, 1));
  int first = 0;
  for (int i = 0; i < kDraws; ++i) first += cold.sample(logs(p), {}) == 0;
  EXPECT_NEAR(first / static_cast<double>(kDraws), 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), 0.013);
}

TEST(Sampler, TopKKeepsExactlyK) {
  SamplerOptions options = with(3.0);
  options.top_k = 2;
  EXPECT_EQ(drawn(options, {1, 4, 2, 3}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(drawn(options, {4, 4, 4, 4}), (std::set<int32_t>{0, 1}));  // ties: lowest ids
  options.top_k = 100;
  EXPECT_EQ(drawn(options, {1, 1, 1}), (std::set<int32_t>{0, 1, 2}));
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  SamplerOptions options = with(1.0);
  const auto logits = logs({0.1, 0.5, 0.15, 0.25});
  options.top_p = 0.45;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1}));
  options.top_p = 0.7;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1, 3}));
  options.top_p = 0.8;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1, 2, 3}));
  options.top_p = 0.95;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{0, 1, 2, 3}));
  options.top_p = 0;  // never empty
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1}));
  // After top-k the probabilities are those of the kept: 0.5 / 0.75 reaches 0.6.
  options.top_k = 2;
  options.top_p = 0.6;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1}));
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  SamplerOptions options = with(1.0);
  const auto logits = logs({0.1, 0.5, 0.15, 0.25});
  options.min_p = 0.29;  // 0.145
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1, 2, 3}));
  options.min_p = 0.49;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1, 3}));
  options.min_p = 1;
  EXPECT_EQ(drawn(options, logits), (std::set<int32_t>{1}));
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  SamplerOptions options = with(0);
  options.repeat_penalty = 2;
  Sampler sampler(options);
  const std::vector<int32_t> context = {0, 0, 0, 9, -1};  // each id once; unknown ids are ignored
  EXPECT_EQ(sampler.sample(std::vector<float>{4, 3, 1}, context), 1);        // 4 -> 2
  EXPECT_EQ(sampler.sample(std::vector<float>{4, 1.9f, 1}, context), 0);     // 2, not 4 / 8
  EXPECT_EQ(sampler.sample(std::vector<float>{-1, -1.5f, -9}, context), 1);  // -1 -> -2
  options.repeat_window = 2;                                                 // sees 9 and -1 only
  EXPECT_EQ(Sampler(options).sample(std::vector<float>{4, 3, 1}, context), 0);
  options.repeat_window = -1;  // the whole context
  EXPECT_EQ(Sampler(options).sample(std::vector<float>{4, 3, 1}, context), 1);
}

}  // namespace
}  // namespace pome
