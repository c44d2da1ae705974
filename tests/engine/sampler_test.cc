#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <utility>

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

// As many logits as a large vocabulary has, at sizes that end within a block of a scan.
std::vector<float> many_logits(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> out(count);
  for (float& logit : out) logit = normal(random);
  return out;
}

TEST(Sampler, LargestIndexIsThatOfAPlainScan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(largest_index({}), 0);
  for (const size_t count : {1u, 63u, 64u, 65u, 1000u, 5000u}) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
      auto logits = many_logits(count, seed);
      for (float& logit : logits) logit = std::round(logit);  // ties
      if (seed % 2) logits[seed * 31 % count] = nan;
      int32_t wanted = 0;
      float best = -INFINITY;
      for (size_t i = 0; i < count; ++i)
        if (logits[i] > best) {
          best = logits[i];
          wanted = static_cast<int32_t>(i);
        }
      ASSERT_EQ(largest_index(logits), wanted) << count << " " << seed;
    }
    const std::vector<float> flat(count, -INFINITY);
    EXPECT_EQ(largest_index(flat), 0);
  }
}

TEST(Sampler, BelowInfinityFindsEveryPlace) {
  for (const size_t count : {1u, 64u, 130u}) {
    for (size_t at = 0; at < count; ++at) {
      std::vector<float> logits(count, -INFINITY);
      ASSERT_TRUE(below_infinity(logits));
      logits[at] = INFINITY;
      ASSERT_FALSE(below_infinity(logits)) << at;
      logits[at] = std::numeric_limits<float>::quiet_NaN();
      ASSERT_FALSE(below_infinity(logits)) << at;
    }
  }
}

// The draws that a plain sort and e^x of all candidates give.
TEST(Sampler, DrawsOfManyLogitsAreThoseOfAFullSort) {
  struct Case {
    double temperature, top_p, min_p;
    int64_t top_k;
  };
  for (const Case c : {Case{1, 1, 0, 0}, Case{1, 1, 0, 50}, Case{0.7, 0.95, 0, 0},
                       Case{1.5, 0.9, 0, 400}, Case{5, 0.999, 0, 0}, Case{1, 1, 0.01, 0}}) {
    SamplerOptions options = with(c.temperature, 7);
    options.top_p = c.top_p;
    options.min_p = c.min_p;
    options.top_k = c.top_k;
    Sampler sampler(options), flat(with(1, 7));
    const std::vector<float> million(1 << 20, 0.0f);
    for (uint32_t round = 0; round < 12; ++round) {
      const auto logits = many_logits(3001, round);
      std::vector<std::pair<double, int32_t>> sorted;
      for (size_t i = 0; i < logits.size(); ++i)
        sorted.push_back({static_cast<double>(-logits[i]), static_cast<int32_t>(i)});
      std::sort(sorted.begin(), sorted.end());
      if (c.top_k) sorted.resize(static_cast<size_t>(c.top_k));
      std::vector<double> weights;
      double total = 0, kept = 0;
      for (const auto& [negative, id] : sorted) {
        weights.push_back(std::exp((sorted[0].first - negative) / c.temperature));
        total += weights.back();
      }
      size_t count = 0;
      while (count < weights.size() && (count == 0 || kept < c.top_p * total) &&
             weights[count] >= c.min_p)
        kept += weights[count++];
      // Where in [0, 1) the seed's draw lies, to a millionth; near a border both are right.
      const double u = (flat.sample(million, {}) + 0.5) / (1 << 20);
      double left = u * kept;
      size_t at = 0;
      while (at + 1 < count && left >= weights[at]) left -= weights[at++];
      const int32_t got = sampler.sample(logits, {});
      const bool border = left < kept * 3e-6 || weights[at] - left < kept * 3e-6;
      if (!border) {
        EXPECT_EQ(got, sorted[at].second) << c.temperature << " " << round;
      }
    }
  }
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
