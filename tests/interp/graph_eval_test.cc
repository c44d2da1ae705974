#include "interp/graph_eval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "graph/builder.h"
#include "graph/passes.h"

namespace pome {
namespace {

std::vector<float> noise(size_t count, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}
Tensor noise_tensor(Shape shape, uint32_t seed, float scale = 1) {
  return Tensor::from_f32(shape, noise(static_cast<size_t>(*element_count(shape)), seed, scale));
}
Constant weight(const std::string& name, Shape shape, uint32_t seed, float scale = 0.4f) {
  Constant constant;
  constant.name = name;
  constant.data = inline_constant(noise_tensor(std::move(shape), seed, scale));
  return constant;
}
ModelInfo info() {
  ModelInfo i;
  i.family = "test";
  i.vocab_size = 13;
  i.max_position_embeddings = 64;
  return i;
}

// One value from a graph whose only op takes inputs of the given shapes.
struct OneOp {
  std::vector<std::pair<std::string, Tensor>> inputs;
  std::vector<ValueType> types;
  void add(Tensor tensor, SymShape shape) {
    types.push_back({tensor.dtype(), std::move(shape)});
    inputs.emplace_back("in" + std::to_string(inputs.size()), std::move(tensor));
  }
  Tensor run(Op op) {
    GraphBuilder b(info());
    std::vector<ValueId> operands;
    for (size_t i = 0; i < inputs.size(); ++i)
      operands.push_back(b.input(inputs[i].first, types[i]));
    b.token_ids();
    auto graph = b.finish(b.add(std::move(op), operands, "out"));
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    auto given = inputs;
    int64_t batch = 1, tokens = 1;
    for (size_t i = 0; i < inputs.size(); ++i)
      for (size_t axis = 0; axis < types[i].shape.size(); ++axis) {
        if (types[i].shape[axis].symbol == Symbol::kBatch) batch = inputs[i].second.shape()[axis];
        if (types[i].shape[axis].symbol == Symbol::kTokens) tokens = inputs[i].second.shape()[axis];
      }
    given.emplace_back("input_ids", Tensor::zeros(DType::kI32, {batch, tokens}));
    auto out = evaluate(*graph, given, {"out"}, nullptr);
    EXPECT_TRUE(out.ok()) << out.status().to_string();
    return (*out)[0];
  }
};

TEST(Composite, RmsNormFollowsItsFormula) {
  OneOp one;
  one.add(noise_tensor({2, 3, 7}, 1), {Symbol::kBatch, Symbol::kTokens, 7});
  one.add(noise_tensor({7}, 2), {7});
  const Tensor out = one.run(RmsNormOp{1e-5});
  for (int64_t r = 0; r < 6; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < 7; ++i)
      sum += std::pow(one.inputs[0].second.f32()[static_cast<size_t>(r * 7 + i)], 2);
    for (int64_t i = 0; i < 7; ++i)
      EXPECT_NEAR(out.f32()[static_cast<size_t>(r * 7 + i)],
                  one.inputs[0].second.f32()[static_cast<size_t>(r * 7 + i)] /
                      std::sqrt(sum / 7 + 1e-5) *
                      one.inputs[1].second.f32()[static_cast<size_t>(i)],
                  1e-5);
  }
}

TEST(Composite, LayerNormFollowsItsFormula) {
  for (const bool has_bias : {false, true}) {
    OneOp one;
    one.add(noise_tensor({2, 3, 7}, 1), {Symbol::kBatch, Symbol::kTokens, 7});
    one.add(noise_tensor({7}, 2), {7});
    if (has_bias) one.add(noise_tensor({7}, 5), {7});
    const Tensor out = one.run(LayerNormOp{0.01});
    for (size_t r = 0; r < 6; ++r) {
      const auto x = one.inputs[0].second.f32().subspan(r * 7, 7);
      double mean = 0, variance = 0;
      for (const float value : x) mean += value / 7.0;
      for (const float value : x) variance += (value - mean) * (value - mean) / 7.0;
      for (size_t i = 0; i < 7; ++i)
        EXPECT_NEAR(out.f32()[r * 7 + i],
                    (x[i] - mean) / std::sqrt(variance + 0.01) * one.inputs[1].second.f32()[i] +
                        (has_bias ? static_cast<double>(one.inputs[2].second.f32()[i]) : 0.0),
                    1e-5);
    }
  }
}

void check_rope(RopeStyle style, int64_t rotary, int64_t dim, int32_t position) {
  OneOp one;
  const int64_t heads = 2, tokens = 3;
  one.add(noise_tensor({1, heads, tokens, dim}, 3), {Symbol::kBatch, heads, Symbol::kTokens, dim});
  one.add(Tensor::from_i32({1}, {position}), {1});
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotary / 2; ++i)
    frequencies.push_back(static_cast<float>(
        std::pow(100.0, -2.0 * static_cast<double>(i) / static_cast<double>(rotary))));
  one.add(Tensor::from_f32({rotary / 2}, frequencies), {rotary / 2});
  const Tensor out = one.run(RopeOp{style, rotary, 1.5});
  const auto x = one.inputs[0].second.f32();
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t i = 0; i < dim; ++i) {
        const int64_t row = (h * tokens + t) * dim;
        double expected = x[static_cast<size_t>(row + i)];
        if (i < rotary) {
          const int64_t pair = style == RopeStyle::kHalves ? i % (rotary / 2) : i / 2;
          const bool second = style == RopeStyle::kHalves ? i >= rotary / 2 : i % 2 == 1;
          const int64_t other = style == RopeStyle::kHalves
                                    ? (second ? i - rotary / 2 : i + rotary / 2)
                                    : (second ? i - 1 : i + 1);
          const double angle =
              static_cast<double>(position + t) * frequencies[static_cast<size_t>(pair)];
          expected =
              1.5 * (x[static_cast<size_t>(row + i)] * std::cos(angle) +
                     (second ? 1 : -1) * x[static_cast<size_t>(row + other)] * std::sin(angle));
        }
        EXPECT_NEAR(out.f32()[static_cast<size_t>(row + i)], expected, 1e-5);
      }
}
TEST(Composite, RopeHalves) { check_rope(RopeStyle::kHalves, 8, 8, 5); }
TEST(Composite, RopeHalvesPartial) { check_rope(RopeStyle::kHalves, 4, 10, 0); }
TEST(Composite, RopeInterleaved) { check_rope(RopeStyle::kInterleaved, 6, 6, 7); }
TEST(Composite, RopeInterleavedPartial) { check_rope(RopeStyle::kInterleaved, 4, 6, 2); }

void check_attention(int64_t past, int64_t tokens, int64_t window, double softcap, bool sinks) {
  const int64_t heads = 4, kv_heads = 2, dim = 3, value_dim = 5, total = past + tokens;
  OneOp one;
  one.add(noise_tensor({1, heads, tokens, dim}, 4), {Symbol::kBatch, heads, Symbol::kTokens, dim});
  one.add(noise_tensor({1, kv_heads, total, dim}, 5),
          {Symbol::kBatch, kv_heads, Symbol::kTotal, dim});
  one.add(noise_tensor({1, kv_heads, total, value_dim}, 6),
          {Symbol::kBatch, kv_heads, Symbol::kTotal, value_dim});
  if (sinks) one.add(noise_tensor({heads}, 7), {heads});
  // P is bound by a cache-shaped input.
  one.add(Tensor::zeros(DType::kF32, {past}), {Symbol::kPast});
  GraphBuilder b(info());
  std::vector<ValueId> operands;
  for (size_t i = 0; i < one.inputs.size(); ++i)
    operands.push_back(b.input(one.inputs[i].first, one.types[i]));
  operands.pop_back();
  b.token_ids();
  auto graph = b.finish(b.add(AttentionOp{0.7, window, softcap}, operands, "out"));
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  auto given = one.inputs;
  given.emplace_back("input_ids", Tensor::zeros(DType::kI32, {1, tokens}));
  auto out = evaluate(*graph, given, {"out"}, nullptr);
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  const auto q = one.inputs[0].second.f32(), k = one.inputs[1].second.f32(),
             v = one.inputs[2].second.f32();
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t t = 0; t < tokens; ++t) {
      std::vector<double> s(static_cast<size_t>(total), -INFINITY);
      double largest = sinks ? one.inputs[3].second.f32()[static_cast<size_t>(h)] : -INFINITY;
      for (int64_t j = 0; j < total; ++j) {
        if (j > past + t || (window > 0 && j <= past + t - window)) continue;
        double dot = 0;
        for (int64_t i = 0; i < dim; ++i)
          dot += q[static_cast<size_t>((h * tokens + t) * dim + i)] *
                 k[static_cast<size_t>((h / 2 * total + j) * dim + i)];
        dot *= 0.7;
        if (softcap > 0) dot = softcap * std::tanh(dot / softcap);
        s[static_cast<size_t>(j)] = dot;
        largest = std::max(largest, dot);
      }
      double sum =
          sinks ? std::exp(one.inputs[3].second.f32()[static_cast<size_t>(h)] - largest) : 0;
      for (double& x : s) sum += x = std::exp(x - largest);
      for (int64_t i = 0; i < value_dim; ++i) {
        double expected = 0;
        for (int64_t j = 0; j < total; ++j)
          expected += s[static_cast<size_t>(j)] / sum *
                      v[static_cast<size_t>((h / 2 * total + j) * value_dim + i)];
        EXPECT_NEAR((*out)[0].f32()[static_cast<size_t>((h * tokens + t) * value_dim + i)],
                    expected, 1e-5);
      }
    }
}
TEST(Composite, AttentionCausalGrouped) { check_attention(0, 5, 0, 0, false); }
TEST(Composite, AttentionWithPast) { check_attention(6, 3, 0, 0, false); }
TEST(Composite, AttentionWindow) { check_attention(6, 4, 3, 0, false); }
TEST(Composite, AttentionSoftcap) { check_attention(2, 3, 0, 1.5, false); }
TEST(Composite, AttentionSinks) { check_attention(2, 3, 4, 0, true); }

void check_moe(const MoeOp& op, bool biased) {
  const int64_t tokens = 4, experts = 5, width = 6, hidden = 3;
  OneOp one;
  one.add(noise_tensor({1, tokens, hidden}, 8), {Symbol::kBatch, Symbol::kTokens, hidden});
  std::vector<float> mix = noise(static_cast<size_t>(tokens * experts), 9);
  for (size_t i = 0; i < mix.size(); i += 3) mix[i] = 0;
  one.add(Tensor::from_f32({1, tokens, experts}, mix), {Symbol::kBatch, Symbol::kTokens, experts});
  const auto weight = [&](int64_t n, int64_t k, uint32_t seed) {
    one.add(noise_tensor({experts, n, k}, seed), {experts, n, k});
  };
  const auto bias = [&](int64_t n, uint32_t seed) {
    one.add(noise_tensor({experts, n}, seed), {experts, n});
  };
  weight(width, hidden, 10);
  if (op.gated) weight(width, hidden, 11);
  weight(hidden, width, 12);
  if (biased) {
    bias(width, 13);
    if (op.gated) bias(width, 14);
    bias(hidden, 15);
  }
  const Tensor out = one.run(op);
  const auto at = [&](size_t input, int64_t i) {
    return static_cast<double>(one.inputs[input].second.f32()[static_cast<size_t>(i)]);
  };
  const size_t down = op.gated ? 4 : 3;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < hidden; ++i) {
      double expected = 0;
      for (int64_t e = 0; e < experts; ++e) {
        double y = biased ? at(op.gated ? 7 : 5, e * hidden + i) : 0;
        for (int64_t f = 0; f < width; ++f) {
          double gate = biased ? at(down + 1, e * width + f) : 0;
          double up = biased && op.gated ? at(down + 2, e * width + f) : 0;
          for (int64_t j = 0; j < hidden; ++j) {
            gate += at(0, t * hidden + j) * at(2, (e * width + f) * hidden + j);
            if (op.gated) up += at(0, t * hidden + j) * at(3, (e * width + f) * hidden + j);
          }
          if (op.limit > 0) gate = std::min(gate, op.limit);
          if (op.limit > 0) up = std::clamp(up, -op.limit, op.limit);
          const double inner = op.activation == Activation::kRelu
                                   ? std::max(gate, 0.0)
                                   : gate / (1 + std::exp(-op.sigmoid_scale * gate));
          y += inner * (op.gated ? up + op.up_offset : 1) * at(down, (e * hidden + i) * width + f);
        }
        expected += at(1, t * experts + e) * y;
      }
      EXPECT_NEAR(out.f32()[static_cast<size_t>(t * hidden + i)], expected, 1e-4);
    }
}
TEST(Composite, MoeGated) { check_moe({true, Activation::kSilu}, false); }
TEST(Composite, MoeGatedBiased) { check_moe({true, Activation::kRelu}, true); }
TEST(Composite, MoeClamped) { check_moe({true, Activation::kSilu, 1.702, 0.7, 1}, true); }
TEST(Composite, MoePlain) { check_moe({false, Activation::kRelu}, false); }
TEST(Composite, MoePlainBiased) { check_moe({false, Activation::kSilu, 0.5, 0.9}, true); }

TEST(Composite, Activations) {
  const std::pair<Activation, double (*)(double)> cases[] = {
      {Activation::kSilu, [](double x) { return x / (1 + std::exp(-x)); }},
      {Activation::kRelu, [](double x) { return std::max(x, 0.0); }},
      {Activation::kGelu, [](double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }},
      {Activation::kGeluTanh, [](double x) {
         return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       }}};
  for (const auto& [kind, formula] : cases) {
    OneOp one;
    one.add(noise_tensor({2, 1, 9}, 13, 3), {Symbol::kBatch, Symbol::kTokens, 9});
    const Tensor out = one.run(ActivationOp{kind});
    for (size_t i = 0; i < out.f32().size(); ++i)
      EXPECT_NEAR(out.f32()[i], formula(one.inputs[0].second.f32()[i]), 2e-6);
  }
}

// A small decoder with everything a real one has.
Graph decoder(int layers) {
  GraphBuilder b(info());
  const ValueId position = b.position();
  const ValueId table = b.constant(weight("embedding.weight", {13, 8}, 20));
  const ValueId frequencies = b.vector("frequencies", {1.0f, 0.3f});
  ValueId x = b.add(EmbeddingOp{}, {table, b.token_ids()}, "embedding");
  for (int32_t l = 0; l < layers; ++l) {
    const std::string at = std::to_string(l);
    const ValueId k_cache = b.cache(l, CachePair::Kind::kKey, 1, 4),
                  v_cache = b.cache(l, CachePair::Kind::kValue, 1, 4);
    b.scope("layers." + at + ".");
    const uint32_t seed = 100 + 10 * static_cast<uint32_t>(l);
    const ValueId h = b.add(RmsNormOp{1e-5}, {x, b.constant(weight("n" + at, {8}, seed))}, "norm");
    const ValueId q =
        b.add(RopeOp{RopeStyle::kHalves, 4, 1},
              {b.split_heads(b.linear(h, b.constant(weight("q" + at, {8, 8}, seed + 1))), 2, 4),
               position, frequencies},
              "q");
    const ValueId k =
        b.add(RopeOp{RopeStyle::kHalves, 4, 1},
              {b.split_heads(b.linear(h, b.constant(weight("k" + at, {4, 8}, seed + 2))), 1, 4),
               position, frequencies},
              "k");
    const ValueId v =
        b.split_heads(b.linear(h, b.constant(weight("v" + at, {4, 8}, seed + 3))), 1, 4, "v");
    const ValueId a =
        b.add(AttentionOp{0.5},
              {q, b.kv_write(k_cache, k, position), b.kv_write(v_cache, v, position)}, "a");
    x = b.binary(BinaryKind::kAdd, x,
                 b.linear(b.merge_heads(a), b.constant(weight("o" + at, {8, 8}, seed + 4))),
                 "output");
    b.end_layer(x);
    b.scope("");
  }
  auto graph = b.finish(b.linear(x, table, kNoValue, "logits"));
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return std::move(*graph);
}

TEST(Runner, PrefillInPiecesEqualsOnePrefillAndChainsEqualTheWhole) {
  const std::vector<int32_t> ids = {1, 5, 12, 0, 3, 3, 7, 9, 2}, cuts = {1, 3};
  std::vector<float> whole(ids.size() * 13), pieces(whole.size()), chained(whole.size());
  auto one = reference_runner({decoder(4)}, {});
  ASSERT_TRUE(one.ok());
  ASSERT_TRUE((*one)->prefill(ids, LogitsOf::kAll, whole).ok());
  EXPECT_EQ((*one)->position(), 9);
  ASSERT_TRUE((*one)->truncate(2).ok());
  ASSERT_TRUE((*one)->truncate(0).ok());
  ASSERT_TRUE(
      (*one)
          ->prefill(std::span(ids).first(4), LogitsOf::kAll, std::span(pieces).first(4 * 13))
          .ok());
  for (size_t i = 4; i < ids.size(); ++i)
    ASSERT_TRUE((*one)->decode(ids[i], std::span(pieces).subspan(i * 13, 13)).ok());
  auto parts = cut_layers(decoder(4), cuts);
  ASSERT_TRUE(parts.ok());
  auto chain = reference_runner(std::move(*parts), {});
  ASSERT_TRUE(chain.ok());
  ASSERT_TRUE((*chain)->prefill(ids, LogitsOf::kAll, chained).ok());
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_NEAR(whole[i], pieces[i], 1e-5);
    EXPECT_EQ(whole[i], chained[i]);
  }
}

TEST(Runner, ConstantsDecodedForEachUseGiveTheSameLogits) {
  const std::vector<int32_t> ids = {1, 5, 12, 0, 3};
  std::vector<float> kept(ids.size() * 13), dropped(kept.size());
  ReferenceOptions options;
  auto all = reference_runner({decoder(2)}, options);
  options.constant_budget = 0;
  auto none = reference_runner({decoder(2)}, options);
  ASSERT_TRUE(all.ok() && none.ok());
  ASSERT_TRUE((*all)->prefill(ids, LogitsOf::kAll, kept).ok());
  ASSERT_TRUE((*none)->prefill(ids, LogitsOf::kAll, dropped).ok());
  EXPECT_EQ(kept, dropped);
}

TEST(Runner, RefusesWhatDoesNotFit) {
  auto runner = reference_runner({decoder(1)}, {1, 3});
  ASSERT_TRUE(runner.ok());
  std::vector<float> logits(13);
  const std::vector<int32_t> four = {1, 2, 3, 4}, outside = {13}, negative = {-1};
  EXPECT_EQ((*runner)->prefill(four, LogitsOf::kLast, logits).code(), StatusCode::kUsage);
  EXPECT_EQ((*runner)->prefill(outside, LogitsOf::kLast, logits).code(), StatusCode::kUsage);
  EXPECT_EQ((*runner)->prefill(negative, LogitsOf::kLast, logits).code(), StatusCode::kUsage);
  EXPECT_EQ((*runner)->position(), 0);
  CancelToken token;
  token.cancel();
  (*runner)->set_cancel(&token);
  EXPECT_EQ((*runner)->decode(1, logits).code(), StatusCode::kInterrupted);
}

}  // namespace
}  // namespace pome
