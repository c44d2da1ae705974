#include "graph/split.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "graph/builder.h"
#include "graph/passes.h"
#include "quantize/quantize.h"
#include "support/graphs.h"
#include "support/logits.h"
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

// Additions to the output of a first part: of "mlp.down" that is "mlp.part0.down.sum".
size_t sums_of_first_parts(const Graph& graph) {
  return static_cast<size_t>(
      std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
        const std::string& name = graph.name(node.result);
        return name.find(".part0") != std::string::npos && name.ends_with(".sum");
      }));
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
  EXPECT_EQ(sums_of_first_parts(graph), graph.layer_outputs.size());
  // Gemma has a norm behind the network.
  const auto gemma = split_parts(graph_of(kZoo + "gemma2", kContext));
  ASSERT_TRUE(gemma.ok());
  EXPECT_GT(gemma->networks, 0);
  EXPECT_EQ(sums_of_first_parts(gemma->graph), 0u);
  EXPECT_TRUE(part_of(graph, graph.layer_outputs[0], graph.layer_outputs[1]).ok());
}

// Whole groups of 16 rows, about a quarter and an eighth of the units, and shares of the
// vocabulary.
TEST(SplitParts, PartsBeginAtWholeGroups) {
  struct Case {
    const char *model, *weight;
    std::vector<int64_t> rows;
  };
  for (const auto& [model, weight, rows] :
       {Case{"tales", "layers.0.mlp.up.weight", {192, 480, 96}},
        Case{"tales", "embedding.weight", {512, 512, 1024, 2048}},
        Case{"zoo/llama3", "layers.0.mlp.gate.weight", {32, 96, 32}},
        Case{"zoo/llama3", "head.weight", {128, 128, 256, 512}},
        Case{"zoo/gemma", "layers.1.mlp.up.weight", {32, 112, 32}},
        Case{"zoo/gptneox", "layers.1.mlp.up.bias", {32, 112, 32}}}) {
    SCOPED_TRACE(std::string(model) + " " + weight);
    const auto made = split_parts(graph_of(kModels + model, kContext));
    ASSERT_TRUE(made.ok()) << made.status().to_string();
    int64_t first = 0;
    for (size_t part = 0; part < rows.size(); ++part) {
      const auto& constants = made->graph.constants;
      const auto found = std::find_if(
          constants.begin(), constants.end(),
          [&, wanted = part_name(weight, part)](const Constant& c) { return c.name == wanted; });
      ASSERT_NE(found, constants.end()) << part;
      EXPECT_EQ(found->data->shape()[0], rows[part]) << part;
      EXPECT_EQ(found->first_row, first) << part;
      first += rows[part];
    }
  }
}

// Tokens on both sides of every seam; heads of their own and tied ones, networks with biases.
TEST(SplitParts, ComputesWhatTheWholeComputes) {
  for (const char* name : {"tales", "zoo/llama3", "zoo/gpt2", "zoo/gptneox", "zoo/gemma2"}) {
    const Graph graph = graph_of(kModels + name, kContext);
    const auto made = split_parts(graph);
    ASSERT_TRUE(made.ok()) << made.status().to_string();
    const bool own_head =
        std::any_of(graph.constants.begin(), graph.constants.end(),
                    [](const Constant& c) { return c.role == Constant::Role::kHead; });
    EXPECT_EQ(made->tables, own_head ? 2 : 1) << name;
    const auto vocab = static_cast<int32_t>(graph.info.vocab_size);
    std::vector<int32_t> ids = {0, 1, vocab - 1};
    for (const int32_t seam : {vocab / 8, vocab / 4, vocab / 2})
      ids.insert(ids.end(), {seam - 1, seam, seam + 1});
    EXPECT_LT(relative_difference(logits_of(graph, ids), logits_of(made->graph, ids)), 1e-5)
        << name;
  }
}

// x + down(relu(up(x) + bias)) in front of a head, and what may be unusual about it.
struct Unusual {
  int64_t units = 256, vocab = 64;
  bool read_twice = false;                      // the units are read by a second matrix
  bool given_out = false;                       // the units are what the graph computes
  bool shared_up = false, shared_down = false;  // a matrix makes something else as well
  bool shared_bias = false;                     // the same of the bias
  bool linear = false;                          // nothing stands between the matrices
  bool scaled = false;                          // one number for all units of a token
  bool doubled = false;                         // the output is added to itself
  bool table_read = false;  // the embedding is read by what is neither lookup nor head
};
Graph network(const Unusual& is) {
  ModelInfo info;
  info.vocab_size = is.vocab;
  info.hidden_size = 32;
  info.num_hidden_layers = 1;
  info.max_position_embeddings = 8;
  GraphBuilder b(info);
  const auto weight = [&](const std::string& name, Shape shape,
                          Constant::Role role = Constant::Role::kMatrix) {
    Constant constant;
    constant.name = name;
    constant.role = role;
    constant.data = inline_constant(Tensor::zeros(DType::kF32, std::move(shape)));
    return b.constant(std::move(constant));
  };
  const auto plus = [&](ValueId x, ValueId y) { return b.binary(BinaryKind::kAdd, x, y); };
  const ValueId ids = b.token_ids();
  const ValueId table = weight("embedding.weight", {is.vocab, 32}, Constant::Role::kEmbedding);
  const ValueId x = b.add(EmbeddingOp{}, {table, ids}, "x");
  const ValueId up = weight("up.weight", {is.units, 32}), bias = weight("up.bias", {is.units}),
                down = weight("down.weight", {32, is.units});
  ValueId units = b.linear(x, up, bias);
  if (!is.linear) units = b.add(ActivationOp{Activation::kRelu}, {units}, "units");
  if (is.scaled) units = b.binary(BinaryKind::kMul, units, b.linear(x, weight("gate", {1, 32})));
  const ValueId y = b.linear(units, down, kNoValue, "y");
  ValueId h = plus(is.doubled ? y : x, y);
  const auto other = [&] { return weight("other.weight", {is.units, 32}); };
  if (is.read_twice) h = plus(h, b.linear(units, weight("second.weight", {32, is.units})));
  if (is.shared_up) h = plus(h, b.linear(b.linear(h, up), weight("second.weight", {32, is.units})));
  if (is.shared_down) h = plus(h, b.linear(b.linear(h, other()), down));
  if (is.shared_bias)
    h = plus(h, b.linear(b.linear(h, other(), bias), weight("second.weight", {32, is.units})));
  b.end_layer(h);
  ValueId head = table;
  if (is.table_read) head = b.binary(BinaryKind::kMul, table, b.scalar(2), "twice");
  auto graph = b.finish(is.given_out ? units : b.linear(h, head, kNoValue, "logits"));
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return std::move(graph).value();
}

TEST(SplitParts, WhatOthersUseTooOrIsSmallStaysWhole) {
  const struct {
    const char* what;
    Unusual is;
    int64_t networks, tables;
    size_t chained;
  } cases[] = {{"usual", {}, 1, 0, 1},
               {"tables", {.vocab = 128}, 1, 1, 1},
               {"small enough", {.units = 128, .vocab = 127}, 1, 0, 1},
               {"too small", {.units = 127}, 0, 0, 0},
               {"read twice", {.read_twice = true}, 0, 0, 0},
               {"given out", {.vocab = 256, .given_out = true}, 0, 1, 0},
               {"shared up", {.shared_up = true}, 0, 0, 0},
               {"shared down", {.shared_down = true}, 0, 0, 0},
               {"shared bias", {.shared_bias = true}, 0, 0, 0},
               {"linear", {.linear = true}, 0, 0, 0},
               {"scaled", {.scaled = true}, 0, 0, 0},
               {"doubled", {.doubled = true}, 1, 0, 0},
               {"table read", {.vocab = 128, .table_read = true}, 1, 0, 1}};
  for (const auto& [what, is, networks, tables, chained] : cases) {
    const auto made = split_parts(network(is));
    ASSERT_TRUE(made.ok()) << what << ": " << made.status().to_string();
    EXPECT_EQ(made->networks, networks) << what;
    EXPECT_EQ(made->tables, tables) << what;
    EXPECT_EQ(sums_of_first_parts(made->graph), chained) << what;
  }
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
