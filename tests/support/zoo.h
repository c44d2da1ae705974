// The model collection (models/zoo, models/tales): folders, recorded values, distances, and the
// result that a test leaves for scripts/families-table.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "graph/runner.h"
#include "support/npy.h"

namespace pome::test {

inline const std::string kModels = POME_SOURCE_DIR "/models/";
inline const std::string kZoo = kModels + "zoo/";
// Of logits, absolute: models/zoo/README.md.
inline constexpr double kGoldenTolerance = 1e-3;

// Folders of models/zoo with recorded logits, in order; the collection lives in this tree, so one
// that is not found is a failure of the tests that are made from this list.
inline std::vector<std::string> zoo_names() {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(kZoo, error))
    if (std::filesystem::exists(entry.path() / "golden/logits.npy"))
      found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  return found;
}
// "phi3-longrope" as a part of a test's name.
inline std::string test_name(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}
inline std::string name_of_parameter(const testing::TestParamInfo<std::string>& info) {
  return test_name(info.param);
}

inline std::vector<int32_t> read_ids(const std::string& path) {
  std::ifstream file(path);
  std::vector<int32_t> ids;
  for (int32_t id; file >> id;) ids.push_back(id);
  return ids;
}
inline std::vector<float> read_floats(const std::string& path) {
  const auto tensor = read_npy(path);
  EXPECT_TRUE(tensor && tensor->dtype() == DType::kF32) << path;
  if (!tensor || tensor->dtype() != DType::kF32) return {};
  return {tensor->f32().begin(), tensor->f32().end()};
}

inline double largest_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = a.size() == b.size() ? 0 : HUGE_VAL;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - b[i]);
    if (std::isnan(difference)) return HUGE_VAL;
    largest = std::max(largest, difference);
  }
  return largest;
}

// The same, over the largest magnitude of `a`.
inline double relative_difference(std::span<const float> a, std::span<const float> b) {
  float largest = 0;
  for (const float value : a) largest = std::max(largest, std::fabs(value));
  return largest_difference(a, b) / largest;
}

// log of the sum of exponentials of a row of logits
inline double log_sum(std::span<const float> row) {
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(x - largest);
  return largest + std::log(sum);
}
// Mean over rows of KL(p || q) of the softmaxes of logits.
inline double mean_kl(std::span<const float> p, std::span<const float> q, size_t vocab) {
  EXPECT_EQ(p.size(), q.size());
  if (p.size() != q.size() || p.size() < vocab) return HUGE_VAL;
  const size_t rows = p.size() / vocab;
  double total = 0;
  for (size_t r = 0; r < rows; ++r) {
    const auto a = p.subspan(r * vocab, vocab), b = q.subspan(r * vocab, vocab);
    const double sum_a = log_sum(a), sum_b = log_sum(b);
    for (size_t i = 0; i < vocab; ++i)
      total += std::exp(a[i] - sum_a) * (a[i] - sum_a - (b[i] - sum_b));
  }
  return std::isnan(total) ? HUGE_VAL : total / static_cast<double>(rows);
}

// The recorded path: 16 ids of a prompt and those that were decoded greedily. Every one of them
// must be the best, or within 0.01 of it, where a path may fork.
inline void expect_greedy_path(Runner& runner, std::span<const int32_t> path) {
  constexpr size_t kPrompt = 16;
  ASSERT_GT(path.size(), kPrompt);
  std::vector<float> logits(static_cast<size_t>(runner.info().vocab_size));
  ASSERT_TRUE(runner.prefill(path.first(kPrompt), LogitsOf::kLast, logits).ok());
  for (size_t i = kPrompt; i < path.size(); ++i) {
    const float best = *std::max_element(logits.begin(), logits.end());
    ASSERT_LT(best - logits[static_cast<size_t>(path[i])], 0.01f) << "step " << i;
    if (i + 1 < path.size()) {
      ASSERT_TRUE(runner.decode(path[i], logits).ok());
    }
  }
}

// One cell of docs/families.md: a figure of this test for a model. It ends up as a property in the
// test's XML report; scripts/families-table gathers them.
inline void record(const std::string& model, const std::string& column, const std::string& value) {
  testing::Test::RecordProperty("cell:" + model + ":" + column, value);
}
inline void record(const std::string& model, const std::string& column, double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  record(model, column, std::string(text));
}

}  // namespace pome::test
