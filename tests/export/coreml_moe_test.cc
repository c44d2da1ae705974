// Choosing and running experts in a package, against plain loops and the reference evaluator.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "export/coreml.h"
#include "export/tiny_graph.h"
#include "graph/builder.h"
#include "interp/graph_eval.h"
#include "interp/mil_eval.h"
#include "models/moe.h"
#include "tensor/half.h"

namespace pome {
namespace {

std::vector<float> halves(int64_t count, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& value : out) value = round_to_f16(normal(random));
  return out;
}

ValueId matrix(GraphBuilder& b, const std::string& name, Shape shape, std::vector<float> values) {
  Constant out;
  out.name = name;
  out.data = inline_constant(Tensor::from_f32(std::move(shape), std::move(values)));
  return b.constant(std::move(out));
}

// The single output of the package of a graph of token ids, for ids 0 .. tokens - 1.
std::vector<float> run_package(const Graph& graph, int64_t tokens, bool round_f16) {
  CoremlOptions options;
  options.context = options.chunk = tokens;
  options.scheme = "test";
  options.tokenizer_digest = "digest";
  options.model_name = "moe";
  const std::string path = export_folder("moe");
  const auto report = export_coreml(graph, options, path, {});
  EXPECT_TRUE(report.ok()) << report.status().to_string();
  if (!report.ok()) return {};
  MilOptions mil;
  mil.round_f16 = round_f16;
  auto program = MilProgram::open(path, mil);
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  if (!program.ok()) return {};
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  NamedTensors states;
  auto out = (*program)->run("prefill",
                             {{"input_ids", Tensor::from_i32({1, tokens}, ids)},
                              {"position", Tensor::from_i32({1}, {0})},
                              {"causal_mask", Tensor::zeros(DType::kF32, {1, 1, tokens, tokens})}},
                             &states);
  EXPECT_TRUE(out.ok()) << out.status().to_string();
  if (!out.ok()) return {};
  const Tensor values = out->front().second.to(DType::kF32);
  return {values.f32().begin(), values.f32().end()};
}

TEST(CoremlMoe, TheLargestAreKeptAndTiesGoToTheLowestIndex) {
  const int64_t tokens = 9, n = 7, k = 3;
  std::vector<float> table = halves(tokens * n, 1);
  std::fill(table.begin(), table.begin() + n, 0.5f);
  for (size_t i = static_cast<size_t>(n); i < table.size(); i += 2) table[i] = 1.0f;
  table[static_cast<size_t>(2 * n)] = table[static_cast<size_t>(2 * n + 4)] = -3;  // -inf below
  GraphBuilder b(ModelInfo{});
  const ValueId ids = b.token_ids();
  const ValueId x = b.add(EmbeddingOp{}, {matrix(b, "table", {tokens, n}, table), ids}, "x");
  const ValueId low = b.binary(BinaryKind::kLess, x, b.scalar(-2), "low");
  const ValueId ranked = b.add(SelectOp{}, {low, b.scalar(-INFINITY), x}, "ranked");
  const ValueId top = b.add(TopKMaskOp{k}, {ranked}, "top");
  const auto graph = b.finish(b.add(SelectOp{}, {top, b.scalar(1), b.scalar(0)}, "kept"));
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const auto got = run_package(*graph, tokens, true);
  ASSERT_EQ(got.size(), table.size());
  for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
    std::vector<float> row(table.begin() + static_cast<int64_t>(t) * n,
                           table.begin() + static_cast<int64_t>(t + 1) * n);
    for (float& value : row)
      if (value < -2) value = -INFINITY;
    for (size_t e = 0; e < static_cast<size_t>(n); ++e) {
      int64_t beaten = 0;
      for (size_t j = 0; j < static_cast<size_t>(n); ++j)
        beaten += row[j] > row[e] || (row[j] == row[e] && j < e);
      EXPECT_EQ(got[t * n + e], beaten < k ? 1.0f : 0.0f) << t << ", " << e;
    }
  }
}

void expect_same(const MoeOp& op, bool biased, const RouterConfig& router, bool sigmoid) {
  const int64_t tokens = 6, hidden = 16, width = 12, experts = router.experts;
  GraphBuilder b(ModelInfo{});
  const ValueId ids = b.token_ids();
  const ValueId x = b.add(
      EmbeddingOp{}, {matrix(b, "table", {tokens, hidden}, halves(tokens * hidden, 1)), ids}, "x");
  const ValueId logits = b.linear(
      x, matrix(b, "router", {experts, hidden}, halves(experts * hidden, 2, 0.5f)), kNoValue, "r");
  const ValueId mix = sigmoid ? sigmoid_router(b, logits, b.vector("c", halves(experts, 3)), router)
                              : softmax_router(b, logits, router);
  std::vector<ValueId> operands = {x, mix};
  uint32_t seed = 4;
  const auto add = [&](Shape shape, int64_t count) {
    const std::string name = "w" + std::to_string(seed);
    operands.push_back(matrix(b, name, std::move(shape), halves(count, seed, 0.3f)));
    ++seed;
  };
  add({experts, width, hidden}, experts * width * hidden);
  if (op.gated) add({experts, width, hidden}, experts * width * hidden);
  add({experts, hidden, width}, experts * width * hidden);
  if (biased) {
    add({experts, width}, experts * width);
    if (op.gated) add({experts, width}, experts * width);
    add({experts, hidden}, experts * hidden);
  }
  const auto graph = b.finish(b.add(op, operands, "out"));
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  std::vector<int32_t> all(static_cast<size_t>(tokens));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
  const auto wanted =
      evaluate(*graph, {{"input_ids", Tensor::from_i32({1, tokens}, all)}}, {"out"}, nullptr);
  ASSERT_TRUE(wanted.ok()) << wanted.status().to_string();
  const auto got = run_package(*graph, tokens, false);
  ASSERT_EQ(got.size(), (*wanted)[0].f32().size());
  float magnitude = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], (*wanted)[0].f32()[i], 2e-3) << i;
    magnitude = std::max(magnitude, std::abs(got[i]));
  }
  EXPECT_GT(magnitude, 0.1f);
}

TEST(CoremlMoe, Gated) { expect_same({}, false, {5, 2, 1, 1, true}, false); }
TEST(CoremlMoe, ClampedWithBiases) {
  expect_same({true, Activation::kSilu, 1.702, 0.4, 1}, true, {6, 2, 1, 1, true}, false);
}
TEST(CoremlMoe, WithoutGates) {
  expect_same({false, Activation::kGelu}, true, {4, 3, 1, 1, false}, false);
}
TEST(CoremlMoe, SigmoidRouterWithGroups) { expect_same({}, false, {8, 2, 4, 2, true, 2.5}, true); }

}  // namespace
}  // namespace pome
