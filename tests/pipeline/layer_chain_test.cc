#include "pipeline/layer_chain.h"

#include <gtest/gtest.h>

#include "graph/passes.h"
#include "support/graphs.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

constexpr int64_t kContext = 64;

TEST(LayerChain, LayersAreCutBetweenAttentionAndFeedForwardWhereNothingElseIsRead) {
  struct Row {
    const char* model;
    size_t halves;
  };
  // Of models whose two branches read one hidden state no half can be told apart.
  for (const Row& row : {Row{"llama3", 2}, Row{"gpt2", 2}, Row{"gemma2", 2}, Row{"mixtral", 2},
                         Row{"deepseek-mla", 2}, Row{"phi2", 1}, Row{"gptneox", 1}}) {
    const Graph graph = graph_of(kZoo + row.model, kContext);
    const LayerChain chain = layer_chain(graph);
    EXPECT_EQ(chain.parts.size(), row.halves * graph.layer_outputs.size() + 1) << row.model;
    ValueId last = kNoValue;
    std::set<std::string> seen;
    for (const ChainPart& part : chain.parts) {
      EXPECT_EQ(part.start, last) << row.model;
      last = part.end;
      const auto cut = part_of(graph, part.start, part.end);
      ASSERT_TRUE(cut.ok()) << row.model << cut.status().to_string();
      for (const ReadValue& value : read_values(*cut))
        for (const std::string& weight : value.weights)
          EXPECT_TRUE(seen.insert(weight).second) << weight << " is in two parts";
    }
    // All but the head.
    size_t all = 0;
    for (const ReadValue& value : read_values(graph)) all += value.weights.size();
    EXPECT_EQ(seen.size() + 1, all) << row.model;
  }
}

TEST(ProductsOfWeights, KnowTheHiddenStateThatIsWrittenInto) {
  const Graph llama = graph_of(kZoo + "llama3", kContext);
  const auto products = products_of_weights(llama);
  const LayerChain chain = layer_chain(llama);
  const Product o = products.at("layers.1.attention.o.weight"),
                down = products.at("layers.1.mlp.down.weight");
  EXPECT_EQ(o.added_to, chain.parts[2].start);
  EXPECT_EQ(o.sum, chain.parts[2].end);
  EXPECT_EQ(down.added_to, chain.parts[3].start);
  EXPECT_EQ(down.sum, chain.parts[3].end);
  const Product gate = products.at("layers.1.mlp.gate.weight");
  EXPECT_NE(gate.value, kNoValue);
  EXPECT_EQ(gate.sum, kNoValue);
  // A norm stands between.
  for (const auto& [name, product] : products_of_weights(graph_of(kZoo + "gemma2", kContext)))
    EXPECT_EQ(product.sum, kNoValue) << name;
}

}  // namespace
}  // namespace pome
