// Graphs of models on disk, ids to run through them, and the values of their constants.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/models.h"

namespace pome::test {

inline Graph graph_of(const std::string& path, int64_t context = 0) {
  auto checkpoint = open_checkpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  auto graph = build_graph(*checkpoint, {context});
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return std::move(graph).value();
}

inline std::vector<int32_t> some_ids(const Graph& graph, size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i)
    ids.push_back(
        static_cast<int32_t>((i * i * 31 + 7 * i) % static_cast<size_t>(graph.info.vocab_size)));
  return ids;
}

inline std::vector<float> values_of(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  EXPECT_TRUE(data.read_f32(0, data.rows(), out.data()).ok());
  return out;
}

}  // namespace pome::test
