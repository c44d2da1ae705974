#include "graph/split.h"

#include <gtest/gtest.h>

#include "graph/passes.h"
#include "quantize/quantize.h"
#include "support/graphs.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

constexpr int64_t kContext = 64;

size_t count(const Graph& graph, const std::string& part) {
  return static_cast<size_t>(
      std::count_if(graph.constants.begin(), graph.constants.end(),
                    [&](const Constant& c) { return c.name.find(part) != std::string::npos; }));
}

TEST(SplitParts, CutsWhatIsThereAndKeepsEveryWeightOnce) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const auto made = split_parts(graph);
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  EXPECT_EQ(made->networks, 8);
  EXPECT_EQ(made->tables, 1);
  EXPECT_EQ(parameter_count(made->graph), parameter_count(graph));
  EXPECT_EQ(count(made->graph, ".part"), 8u * 3 * 3 + 4);
  EXPECT_EQ(made->graph.layer_outputs.size(), graph.layer_outputs.size());
  EXPECT_EQ(made->graph.caches.size(), graph.caches.size());
  // Rows and columns of the parts are those of the whole, in order.
  for (const std::string& name :
       {std::string("embedding.weight"), std::string("layers.3.mlp.down.weight")}) {
    const auto find = [](const Graph& in, const std::string& wanted) {
      return std::find_if(in.constants.begin(), in.constants.end(),
                          [&](const Constant& c) { return c.name == wanted; });
    };
    const std::vector<float> whole = values_of(*find(graph, name)->data);
    const int64_t columns = find(graph, name)->data->columns();
    std::vector<float> joined(whole.size());
    int64_t row = 0, column = 0;
    const bool by_rows = name == "embedding.weight";
    for (size_t part = 0; part < (by_rows ? 4u : 3u); ++part) {
      const ConstantData& data = *find(made->graph, part_name(name, part))->data;
      EXPECT_EQ(data.rows() % 16, 0);
      const std::vector<float> values = values_of(data);
      for (int64_t r = 0; r < data.rows(); ++r)
        for (int64_t c = 0; c < data.columns(); ++c)
          joined[static_cast<size_t>((row + r) * columns + column + c)] =
              values[static_cast<size_t>(r * data.columns() + c)];
      (by_rows ? row : column) += by_rows ? data.rows() : data.columns();
    }
    EXPECT_EQ(joined, whole) << name;
  }
}

TEST(SplitParts, SumsAreAChainWithTheHiddenStateWhereNothingStandsBetween) {
  const auto llama = split_parts(graph_of(kZoo + "llama3", kContext));
  ASSERT_TRUE(llama.ok());
  const Graph& graph = llama->graph;
  // The first part's too: with the hidden state, not with the other parts alone.
  size_t sums = 0;
  for (const Node& node : graph.nodes) sums += graph.name(node.result).ends_with(".part0.sum");
  EXPECT_EQ(sums, graph.layer_outputs.size());
  // Gemma has a norm behind the network.
  const auto gemma = split_parts(graph_of(kZoo + "gemma2", kContext));
  ASSERT_TRUE(gemma.ok());
  EXPECT_GT(gemma->networks, 0);
  for (const Node& node : gemma->graph.nodes)
    EXPECT_FALSE(gemma->graph.name(node.result).ends_with(".part0.sum"));
  EXPECT_TRUE(part_of(graph, graph.layer_outputs[0], graph.layer_outputs[1]).ok());
}

TEST(SplitParts, WhatIsStoredAsIntegersStaysWhole) {
  const auto recipe = parse_recipe("int4");
  ASSERT_TRUE(recipe.ok());
  const auto quantised = quantize(graph_of(kZoo + "llama3", kContext), *recipe);
  ASSERT_TRUE(quantised.ok());
  const auto made = split_parts(quantised->graph);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->networks, 0);
  EXPECT_EQ(made->tables, 0);
  EXPECT_EQ(print(made->graph), print(quantised->graph));
}

}  // namespace
}  // namespace pome
