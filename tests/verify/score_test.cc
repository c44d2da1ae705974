#include "verify/score.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace pome {
namespace {

constexpr int64_t kVocab = 5;

// A runner whose logits depend on the token before alone: row of token i is table[i].
class TableRunner final : public Runner {
 public:
  explicit TableRunner(std::vector<std::vector<float>> table, int64_t capacity = 64,
                       int64_t chunk = 3)
      : table_(std::move(table)) {
    info_.kind = "table";
    info_.vocab_size = static_cast<int64_t>(table_[0].size());
    info_.capacity = capacity;
    info_.chunk = chunk;
  }
  const RunnerInfo& info() const override { return info_; }
  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position_, ids, which, logits.size()));
    for (size_t i = 0; i < ids.size(); ++i) {
      fed.push_back(ids[i]);
      const auto& row = table_[static_cast<size_t>(ids[i])];
      if (which == LogitsOf::kAll)
        std::copy(row.begin(), row.end(), logits.begin() + static_cast<ptrdiff_t>(i * row.size()));
    }
    longest_call = std::max(longest_call, ids.size());
    position_ += static_cast<int64_t>(ids.size());
    return {};
  }
  Status decode(int32_t id, std::span<float> logits) override {
    ++decodes;
    return prefill(std::span(&id, 1), LogitsOf::kAll, logits);
  }
  int64_t position() const override { return position_; }
  Status truncate(int64_t position) override {
    position_ = position;
    fed.push_back(-1);
    return {};
  }

  std::vector<int32_t> fed;  // -1 where the context was emptied
  size_t longest_call = 0;
  int decodes = 0;

 private:
  RunnerInfo info_;
  std::vector<std::vector<float>> table_;
  int64_t position_ = 0;
};

std::vector<std::vector<float>> table(float shift) {
  std::vector<std::vector<float>> out(kVocab, std::vector<float>(kVocab));
  for (size_t i = 0; i < kVocab; ++i)
    for (size_t j = 0; j < kVocab; ++j)
      out[i][j] = std::sin(static_cast<float>(3 * i + 7 * j) + shift * static_cast<float>(j));
  return out;
}
double log_p(const std::vector<float>& row, size_t target) {
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x));
  return static_cast<double>(row[target]) - std::log(sum);
}
const std::vector<int32_t> kIds = {0, 1, 2, 3, 4, 1, 3, 0, 2, 2, 4};

TEST(Score, EveryTokenAfterTheFirstOfAWindow) {
  const auto t = table(0);
  for (const int64_t window : {int64_t{2}, int64_t{4}, int64_t{5}, int64_t{11}, int64_t{64}}) {
    TableRunner runner(t);
    ScoreOptions options;
    options.window = window;
    const auto score = pome::score(runner, kIds, options, {});
    ASSERT_TRUE(score.ok()) << score.status().to_string();
    std::vector<double> losses;
    for (size_t i = 1; i < kIds.size(); ++i)
      if (i % static_cast<size_t>(window) != 0)
        losses.push_back(-log_p(t[static_cast<size_t>(kIds[i - 1])], static_cast<size_t>(kIds[i])));
    double mean = 0, square = 0;
    for (const double x : losses) mean += x / static_cast<double>(losses.size());
    for (const double x : losses) square += (x - mean) * (x - mean);
    const double n = static_cast<double>(losses.size());
    EXPECT_EQ(score->tokens, static_cast<int64_t>(losses.size()));
    EXPECT_NEAR(score->mean_nll, mean, 1e-12);
    EXPECT_NEAR(score->perplexity, std::exp(mean), 1e-9);
    EXPECT_NEAR(score->perplexity_stderr, std::exp(mean) * std::sqrt(square / (n - 1) / n), 1e-9);
    EXPECT_LE(runner.longest_call, 3u);  // the chunk it likes best
  }
}

TEST(Score, SecondHalfOfWholeWindowsBehindBos) {
  const auto t = table(0);
  TableRunner runner(t);
  ScoreOptions options;
  options.window = 4;
  options.rule = ScoreRule::kSecondHalf;
  EXPECT_FALSE(score(runner, kIds, options, {}).ok());  // no BOS known
  options.bos = 4;
  const auto score = pome::score(runner, kIds, options, {});
  ASSERT_TRUE(score.ok());
  // Windows 0..3 and 4..7; the rest is too short. Targets 3 of each: window / 2 + 1 .. window - 1.
  EXPECT_EQ(score->tokens, 2);
  EXPECT_NEAR(score->mean_nll, -(log_p(t[2], 3) + log_p(t[3], 0)) / 2, 1e-12);
  const std::vector<int32_t> expected = {-1, 4, 1, 2, 3, -1, 4, 1, 3, 0};
  runner.fed.erase(runner.fed.begin(), runner.fed.end() - 10);
  EXPECT_EQ(runner.fed, expected);
}

TEST(Score, RefusesWhatCannotBeScored) {
  TableRunner runner(table(0), 8);
  ScoreOptions options;
  options.window = 9;
  EXPECT_EQ(score(runner, kIds, options, {}).status().code(), StatusCode::kUsage);
  options.window = 1;
  EXPECT_FALSE(score(runner, kIds, options, {}).ok());
  options.window = 8;
  EXPECT_FALSE(score(runner, std::vector<int32_t>{3}, options, {}).ok());
  EXPECT_FALSE(score(runner, std::vector<int32_t>{}, options, {}).ok());
  auto t = table(0);
  t[1][2] = std::numeric_limits<float>::quiet_NaN();
  TableRunner broken(t);
  const auto nan = score(broken, kIds, options, {});
  ASSERT_FALSE(nan.ok());
  EXPECT_EQ(nan.status().refusal(), Refusal::kRange);
}

TEST(Compare, DivergenceAgreementAndErrors) {
  const auto a = table(0.05f), o = table(0);
  TableRunner artefact(a, 64, 4), original(o, 64, 2);
  ScoreOptions options;
  options.window = 6;
  const auto compared = compare(artefact, original, kIds, options, {});
  ASSERT_TRUE(compared.ok());
  double kld = 0, largest = 0, mean_error = 0, max_kld = 0;
  int agree = 0, n = 0;
  for (size_t i = 1; i < kIds.size(); ++i) {
    if (i % 6 == 0) continue;
    const auto &x = a[static_cast<size_t>(kIds[i - 1])], &y = o[static_cast<size_t>(kIds[i - 1])];
    double own = 0;
    for (size_t v = 0; v < kVocab; ++v) {
      own += std::exp(log_p(y, v)) * (log_p(y, v) - log_p(x, v));
      const double error = std::fabs(static_cast<double>(x[v]) - static_cast<double>(y[v]));
      largest = std::max(largest, error);
      mean_error += error / kVocab;
    }
    kld += own;
    max_kld = std::max(max_kld, own);
    agree += std::max_element(x.begin(), x.end()) - x.begin() ==
             std::max_element(y.begin(), y.end()) - y.begin();
    ++n;
  }
  EXPECT_EQ(compared->artefact.tokens, n);
  EXPECT_NEAR(compared->mean_kld, kld / n, 1e-9);
  EXPECT_NEAR(compared->max_kld, max_kld, 1e-9);
  EXPECT_NEAR(compared->max_abs_error, largest, 1e-7);
  EXPECT_NEAR(compared->mean_abs_error, mean_error / n, 1e-7);
  EXPECT_DOUBLE_EQ(compared->top1_agreement, static_cast<double>(agree) / n);
  EXPECT_NEAR(compared->ppl_increase_percent,
              100 * (compared->artefact.perplexity / compared->original.perplexity - 1), 1e-9);

  const auto steps = compare_decode(artefact, original, kIds, {});
  ASSERT_TRUE(steps.ok());
  EXPECT_EQ(steps->artefact.tokens, static_cast<int64_t>(kIds.size()) - 1);
  EXPECT_EQ(artefact.decodes, static_cast<int>(kIds.size()) - 1);
}

TEST(Compare, WhatCannotBeCompared) {
  TableRunner small({{0, 1}, {1, 0}}), large(table(0));
  ScoreOptions options;
  options.window = 4;
  EXPECT_EQ(compare(small, large, kIds, options, {}).status().code(), StatusCode::kUsage);
  EXPECT_EQ(compare_decode(small, large, kIds, {}).status().code(), StatusCode::kUsage);
  auto infinite = table(0);
  infinite[3][1] = std::numeric_limits<float>::infinity();
  TableRunner broken(infinite), fine(table(0));
  const auto artefact = compare(broken, fine, kIds, options, {});
  ASSERT_FALSE(artefact.ok());
  EXPECT_EQ(artefact.status().to_string().find("original"), std::string::npos);
  const auto original = compare(fine, broken, kIds, options, {});
  ASSERT_FALSE(original.ok());
  EXPECT_NE(original.status().to_string().find("original"), std::string::npos);
}

}  // namespace
}  // namespace pome
