// Plans that are not exact: integer activations for quantised weights, bfloat16 for many tokens.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/tiny_graph.h"

namespace pome {
namespace {

std::vector<int32_t> some_ids(int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 7 + 3) % 48));
  return ids;
}

struct Outcome {
  std::vector<float> logits;
  std::string steps;
};
Outcome run(const Graph& graph, bool exact, int threads, int64_t chunk,
            std::optional<Isa> isa = std::nullopt) {
  PlanOptions options;
  options.exact = exact;
  options.threads = threads;
  options.chunk = chunk;
  options.isa = isa;
  Outcome out;
  auto plan = compile(graph, options);
  EXPECT_TRUE(plan.ok()) << plan.status().to_string();
  if (!plan.ok()) return out;
  out.steps = (*plan)->describe();
  auto session = (*plan)->new_session();
  EXPECT_TRUE(session.ok()) << session.status().to_string();
  if (!session.ok()) return out;
  const auto ids = some_ids(29);
  out.logits.resize(ids.size() * static_cast<size_t>(graph.info.vocab_size));
  const Status status = (*session)->prefill(ids, LogitsOf::kAll, out.logits);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}

// Root of the mean squared difference over that of the values.
double distance(const std::vector<float>& got, const std::vector<float>& wanted) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i] - wanted[i]), 2);
    size += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(difference / size);
}

struct Case {
  const char* name;
  Encoding encoding;
};
class Fast : public testing::TestWithParam<Case> {
 protected:
  static Graph graph(int64_t hidden, int64_t layers) {
    TinyConfig config;
    config.encoding = GetParam().encoding;
    config.vocab = 80;
    config.hidden = hidden;
    config.width = 2 * hidden;
    config.layers = layers;
    config.bias = true;
    return TinyGraph(config).build();
  }
};

// Palettes are rounded to bytes, all else is as stored.
TEST_P(Fast, NarrowModelsAreNearlyExactOnEveryIsa) {
  const Graph narrow = graph(64, 2);
  for (const Isa isa : available_isas()) {
    const Outcome wanted = run(narrow, true, 1, 29, isa), got = run(narrow, false, 1, 29, isa);
    const bool palette = GetParam().encoding.kind == EncodingKind::kLut;
    // Keys and values are binary16; bfloat16 attention adds its rounding of 2^-9.
    const double attention = isa == Isa::kAvx512Bf16 || isa == Isa::kAmx ? 0.015 : 0.0015;
    EXPECT_LT(distance(got.logits, wanted.logits), palette ? 0.03 : attention) << to_string(isa);
    EXPECT_EQ(wanted.steps.find("packed"), std::string::npos) << "an exact plan must not pack";
  }
}

TEST_P(Fast, WideModelsStayWithinTheRoundingOfActivations) {
  const Graph wide = graph(1024, 1);
  const Outcome wanted = run(wide, true, 1, 29), got = run(wide, false, 1, 29);
  EXPECT_LT(distance(got.logits, wanted.logits), 0.06);
  // Token by token, weights are as stored and activations have more scales.
  const Outcome decoded = run(wide, false, 1, 1);
  EXPECT_LT(distance(decoded.logits, wanted.logits), 0.04);
}

TEST_P(Fast, ThreadsDoNotChangeABit) {
  for (const int64_t hidden : {64, 1024}) {
    const Graph model = graph(hidden, 1);
    const Outcome wanted = run(model, false, 1, 29);
    for (const int threads : {2, 3})
      ASSERT_EQ(run(model, false, threads, 29).logits, wanted.logits) << threads << " threads";
  }
}

TEST_P(Fast, ProductsOfOneValueAreOneStep) {
  const Outcome got = run(graph(64, 1), false, 1, 29, available_isas().back());
  if (got.steps.find("packed") == std::string::npos) GTEST_SKIP() << "nothing is packed here";
  // Queries, keys and values: three shapes behind one name.
  EXPECT_NE(got.steps.find("[32, 64] [16, 64] [16, 64]"), std::string::npos) << got.steps;
}

INSTANTIATE_TEST_SUITE_P(Encodings, Fast,
                         testing::Values(Case{"f16", Encoding::plain(EncodingKind::kF16)},
                                         Case{"q8_0", Encoding::plain(EncodingKind::kQ8_0)},
                                         Case{"q4_0", Encoding::plain(EncodingKind::kQ4_0)},
                                         Case{"int4", Encoding::int_blocks(4, 32)},
                                         Case{"lut4", Encoding::lut(4, 16)}),
                         [](const testing::TestParamInfo<Case>& p) { return p.param.name; });

}  // namespace
}  // namespace pome
