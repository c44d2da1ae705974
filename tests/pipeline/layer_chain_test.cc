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

TEST(SumsOfProducts, AreWithTheHiddenStateThatIsWrittenInto) {
  const Graph llama = graph_of(kZoo + "llama3", kContext);
  const auto sums = sums_of_products(llama);
  const LayerChain chain = layer_chain(llama);
  EXPECT_EQ(sums.size(), 2 * llama.layer_outputs.size());
  EXPECT_EQ(sums.at("layers.1.attention.o.weight"), chain.parts[2].start);
  EXPECT_EQ(sums.at("layers.1.mlp.down.weight"), chain.parts[3].start);
  // A norm stands between.
  EXPECT_TRUE(sums_of_products(graph_of(kZoo + "gemma2", kContext)).empty());
}

}  // namespace
}  // namespace pome
