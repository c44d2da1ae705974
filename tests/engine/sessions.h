// Sessions of small graphs, and what comes out of them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace pome {

inline std::vector<int32_t> some_ids(int64_t count, int64_t vocab = 50) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 17 + 3) % vocab));
  return ids;
}

inline std::unique_ptr<Runner> session_of(const Plan& plan) {
  auto made = plan.new_session();
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return made.ok() ? std::move(*made) : nullptr;
}
// Null, and a failure, when it cannot be had.
inline std::unique_ptr<Runner> session(const Graph& graph, const PlanOptions& options = {}) {
  const auto plan = compile(graph, options);
  EXPECT_TRUE(plan.ok()) << plan.status().to_string();
  return plan.ok() ? session_of(**plan) : nullptr;
}

inline std::vector<float> all_logits(Runner& runner, std::span<const int32_t> ids) {
  std::vector<float> out(ids.size() * static_cast<size_t>(runner.info().vocab_size));
  const Status status = runner.prefill(ids, LogitsOf::kAll, out);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}

// Root of the mean squared difference over that of the values.
inline double distance(const std::vector<float>& got, const std::vector<float>& wanted) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i] - wanted[i]), 2);
    size += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(difference / size);
}

}  // namespace pome
