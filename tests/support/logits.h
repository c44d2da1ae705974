// Logits of a graph as the engine computes them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace pome::test {

inline std::vector<float> logits_of(const Graph& graph, std::span<const int32_t> ids) {
  PlanOptions options;
  options.threads = 2;
  options.capacity = static_cast<int64_t>(ids.size());
  auto plan = compile(graph, options);
  EXPECT_TRUE(plan.ok()) << plan.status().to_string();
  auto session = (*plan)->new_session();
  EXPECT_TRUE(session.ok()) << session.status().to_string();
  std::vector<float> out(ids.size() * static_cast<size_t>(graph.info.vocab_size));
  EXPECT_TRUE((*session)->prefill(ids, LogitsOf::kAll, out).ok());
  return out;
}

}  // namespace pome::test
