#include "graph/graph.h"

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "graph/builder.h"
#include "graph/passes.h"

namespace pome {
namespace {

ModelInfo tiny_info() {
  ModelInfo info;
  info.family = "test";
  info.name = "tiny";
  info.vocab_size = 10;
  info.hidden_size = 8;
  info.num_hidden_layers = 3;
  info.max_position_embeddings = 32;
  return info;
}

Constant weight(const std::string& name, Shape shape, float value = 0.25f) {
  Constant constant;
  constant.name = name;
  Tensor tensor = Tensor::zeros(DType::kF32, shape);
  for (float& x : tensor.mutable_as<float>()) x = value;
  constant.data = inline_constant(tensor);
  return constant;
}

// Three layers of one attention head and a linear each.
Graph tiny(float value = 0.25f, int64_t window = 0) {
  GraphBuilder b(tiny_info());
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId table = b.constant(weight("embedding.weight", {10, 8}, value));
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  for (int32_t layer = 0; layer < 3; ++layer) {
    const ValueId k = b.cache(layer, CachePair::Kind::kKey, 2, 4),
                  v = b.cache(layer, CachePair::Kind::kValue, 2, 4);
    b.scope("layers." + std::to_string(layer) + ".");
    const ValueId q = b.split_heads(
        b.linear(x, b.constant(weight("w" + std::to_string(layer), {8, 8}))), 2, 4, "q");
    const ValueId k_all = b.kv_write(k, q, position, "k_all"),
                  v_all = b.kv_write(v, q, position, "v_all");
    const ValueId a =
        b.merge_heads(b.add(AttentionOp{0.5, window}, {q, k_all, v_all}, "attention"), "heads");
    x = b.binary(BinaryKind::kAdd, x, a, "output");
    b.end_layer(x);
    b.scope("");
  }
  auto graph = b.finish(b.linear(x, table, kNoValue, "logits"));
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return std::move(*graph);
}

Status infer_error(const Op& op, std::vector<ValueType> operands) {
  const auto type = infer_type(op, operands, {});
  return type.status();
}
const ValueType kHidden = {DType::kF32, {Symbol::kBatch, Symbol::kTokens, 8}};

TEST(Infer, ShapesFollowTheSymbols) {
  const ValueType w = {DType::kF32, {5, 8}};
  EXPECT_EQ(to_string(infer_type(LinearOp{}, std::vector{kHidden, w}, {})->shape), "[B, T, 5]");
  const ValueType cache = {DType::kF32, {Symbol::kBatch, 2, Symbol::kPast, 4}},
                  value = {DType::kF32, {Symbol::kBatch, 2, Symbol::kTokens, 4}},
                  position = {DType::kI32, {1}};
  EXPECT_EQ(to_string(infer_type(KvWriteOp{}, std::vector{cache, value, position}, {})->shape),
            "[B, 2, P+T, 4]");
  EXPECT_EQ(bind({Symbol::kBatch, Symbol::kTotal, 7}, {1, 3, 4}), (Shape{1, 7, 7}));
  EXPECT_EQ(to_string(infer_type(SliceOp{-1, 1, 8, 3}, std::vector{kHidden}, {})->shape),
            "[B, T, 3]");
  EXPECT_EQ(infer_type(BinaryOp{BinaryKind::kLess}, std::vector{kHidden, kHidden}, {})->dtype,
            DType::kBool);
}

TEST(Infer, RefusesWhatDoesNotSuit) {
  const ValueType ids = {DType::kI32, {Symbol::kBatch, Symbol::kTokens}},
                  vector = {DType::kF32, {7}}, matrix = {DType::kF32, {5, 7}};
  EXPECT_FALSE(infer_error(LinearOp{}, {kHidden, matrix}).ok());
  EXPECT_FALSE(infer_error(LinearOp{}, {kHidden}).ok());
  EXPECT_FALSE(infer_error(RmsNormOp{1e-5}, {kHidden, vector}).ok());
  const ValueType gain = {DType::kF32, {8}};
  EXPECT_TRUE(infer_error(LayerNormOp{1e-5}, {kHidden, gain, gain}).ok());
  EXPECT_FALSE(infer_error(LayerNormOp{1e-5}, {kHidden, gain, vector}).ok());
  EXPECT_FALSE(infer_error(LayerNormOp{1e-5}, {kHidden, vector}).ok());
  EXPECT_FALSE(infer_error(LayerNormOp{0}, {kHidden, gain}).ok());
  EXPECT_FALSE(infer_error(UnaryOp{UnaryKind::kExp}, {ids}).ok());
  EXPECT_FALSE(infer_error(BinaryOp{BinaryKind::kAdd}, {kHidden, ids}).ok());
  EXPECT_FALSE(infer_error(BinaryOp{BinaryKind::kAdd}, {kHidden, matrix}).ok());
  EXPECT_FALSE(infer_error(BinaryOp{BinaryKind::kAnd}, {kHidden, kHidden}).ok());
  EXPECT_FALSE(infer_error(ReshapeOp{{Symbol::kBatch, 8}}, {kHidden}).ok());
  EXPECT_FALSE(infer_error(TransposeOp{{0, 1, 1}}, {kHidden}).ok());
  EXPECT_FALSE(infer_error(SliceOp{1, 0, 1}, {kHidden}).ok()) << "a symbolic axis cannot be sliced";
  EXPECT_FALSE(infer_error(SliceOp{-1, 0, 9}, {kHidden}).ok());
  EXPECT_FALSE(infer_error(ConcatOp{1}, {kHidden, kHidden}).ok());
  EXPECT_FALSE(infer_error(TopKMaskOp{9}, {kHidden}).ok());
  const ValueType q = {DType::kF32, {Symbol::kBatch, 3, Symbol::kTokens, 4}},
                  k = {DType::kF32, {Symbol::kBatch, 2, Symbol::kTotal, 4}};
  EXPECT_FALSE(infer_error(AttentionOp{1}, {q, k, k}).ok()) << "3 query heads over 2 key heads";
  EXPECT_FALSE(
      infer_error(RopeOp{RopeStyle::kHalves, 6, 1}, {q, {DType::kI32, {1}}, {DType::kF32, {3}}})
          .ok());
}

TEST(Builder, BuildsAndPrints) {
  const Graph graph = tiny();
  const std::string text = print(graph);
  EXPECT_NE(text.find("kv_write"), std::string::npos);
  EXPECT_NE(text.find(": f32 [B, T, 10]  # logits"), std::string::npos) << text;
  EXPECT_EQ(graph.caches.size(), 6u);
  EXPECT_EQ(graph.layer_outputs.size(), 3u);
}

TEST(Builder, ReportsTheFirstErrorByName) {
  GraphBuilder b(tiny_info());
  const ValueId table = b.constant(weight("embedding.weight", {10, 8}));
  const ValueId x = b.add(EmbeddingOp{}, {table, b.token_ids()}, "embedding");
  b.scope("layers.0.");
  const ValueId bad = b.linear(x, b.constant(weight("w", {4, 4})), kNoValue, "mlp.up");
  EXPECT_EQ(bad, kNoValue);
  const auto graph = b.finish(b.linear(bad, table));
  ASSERT_FALSE(graph.ok());
  EXPECT_NE(graph.status().to_string().find("linear"), std::string::npos)
      << graph.status().to_string();
}

TEST(Builder, EqualScalarsShareOneConstant) {
  GraphBuilder b(tiny_info());
  EXPECT_EQ(b.scalar(0.5f), b.scalar(0.5f));
  EXPECT_NE(b.scalar(0.5f), b.scalar(0.25f));
}

TEST(Validate, ListsEverythingThatIsWrong) {
  Graph graph = tiny();
  graph.values[3].name = graph.values[4].name;
  EXPECT_FALSE(validate(graph).ok());
  graph = tiny();
  graph.caches[0].output = graph.caches[0].input;
  graph.output = 9999;
  const std::string text = validate(graph).to_string();
  EXPECT_NE(text.find("no output"), std::string::npos) << text;
  EXPECT_NE(text.find("cache of layer 0"), std::string::npos) << text;
  graph = tiny();
  std::swap(graph.nodes.front(), graph.nodes.back());
  EXPECT_NE(validate(graph).to_string().find("before it is defined"), std::string::npos);
  graph = tiny();
  graph.values[static_cast<size_t>(graph.output)].type.shape[2] = 11;
  EXPECT_NE(validate(graph).to_string().find("inferred"), std::string::npos);
}

TEST(Hash, ChangesWithWeightsAndAttributesNotWithNames) {
  ThreadPool pool(2);
  const GraphHashes base = *hash_graph(tiny(), &pool);
  EXPECT_EQ(base.graph_hash.size(), 64u);
  EXPECT_NE(base.graph_hash, base.source_hash);
  EXPECT_EQ(base.graph_hash, hash_graph(tiny(), nullptr)->graph_hash);
  EXPECT_NE(base.graph_hash, hash_graph(tiny(0.5f), &pool)->graph_hash);
  EXPECT_NE(base.graph_hash, hash_graph(tiny(0.25f, 4), &pool)->graph_hash);
  Graph renamed = tiny();
  for (Value& value : renamed.values) value.name += "_";
  EXPECT_EQ(base.graph_hash, hash_graph(renamed, &pool)->graph_hash);
}

TEST(Passes, DecomposeLeavesPrimitivesOnly) {
  const Graph plain = decompose(tiny(0.25f, 4));
  EXPECT_TRUE(validate(plain).ok()) << validate(plain).to_string();
  for (const Node& node : plain.nodes) EXPECT_FALSE(is_composite(node.op)) << op_name(node.op);
  EXPECT_EQ(plain.name(plain.output), "logits");
  EXPECT_EQ(plain.caches.size(), 6u);
}

TEST(Passes, RemoveDeadDropsWhatNobodyNeeds) {
  GraphBuilder b(tiny_info());
  const ValueId table = b.constant(weight("embedding.weight", {10, 8})),
                spare = b.constant(weight("spare", {10, 8}));
  const ValueId x = b.add(EmbeddingOp{}, {table, b.token_ids()}, "embedding");
  b.linear(x, spare, kNoValue, "unused");
  const Graph graph = *b.finish(b.linear(x, table, kNoValue, "logits"));
  const Graph lean = remove_dead(graph);
  EXPECT_TRUE(validate(lean).ok());
  EXPECT_EQ(lean.constants.size(), 1u);
  EXPECT_EQ(lean.nodes.size() + 2, graph.nodes.size());
}

TEST(Passes, AnInsertedProductIsNotOfTheSource) {
  const Graph graph = tiny();
  const ValueId last = graph.layer_outputs.back();
  const Graph with = insert_product(graph, last, weight("output.basis.weight", {8, 8}));
  ASSERT_TRUE(validate(with).ok()) << validate(with).to_string();
  EXPECT_EQ(with.nodes.size(), graph.nodes.size() + 2);
  EXPECT_NE(print(with).find("output.basis.weight"), std::string::npos);
  EXPECT_EQ(print(remove_inserted(with)), print(graph));
  ThreadPool pool(1);
  const auto before = hash_graph(graph, &pool), after = hash_graph(with, &pool);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(after->source_hash, before->source_hash);
  EXPECT_NE(after->graph_hash, before->graph_hash);
}

TEST(Passes, CutLayersMakesAChain) {
  const std::vector<int32_t> cuts = {1, 2};
  const auto parts = cut_layers(tiny(), cuts);
  ASSERT_TRUE(parts.ok()) << parts.status().to_string();
  ASSERT_EQ(parts->size(), 3u);
  EXPECT_NE((*parts)[0].token_ids, kNoValue);
  EXPECT_EQ((*parts)[1].token_ids, kNoValue);
  for (const Graph& part : *parts) EXPECT_EQ(part.caches.size(), 2u);
  EXPECT_EQ(to_string((*parts)[0].type((*parts)[0].output).shape), "[B, T, 8]");
  EXPECT_EQ(to_string((*parts)[2].type((*parts)[2].output).shape), "[B, T, 10]");
  EXPECT_EQ((*parts)[1].constants.size(), 1u);
  for (const std::vector<int32_t>& bad : {std::vector<int32_t>{0}, {3}, {2, 1}, {1, 1}})
    EXPECT_EQ(cut_layers(tiny(), bad).status().code(), StatusCode::kUsage);
}

}  // namespace
}  // namespace pome
