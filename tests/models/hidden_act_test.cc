#include "models/hidden_act.h"

#include <gtest/gtest.h>

#include <cmath>

#include "interp/graph_eval.h"

namespace pome {
namespace {

const std::vector<float> kInput = {-5, -1.25f, -0.5f, 0, 0.25f, 1, 3, 8};

std::vector<float> values(const std::string& name, bool gated) {
  ModelInfo info;
  info.vocab_size = 4;
  info.max_position_embeddings = 8;
  GraphBuilder b(info);
  b.token_ids();
  const auto count = static_cast<int64_t>(kInput.size());
  const ValueId x = b.input("x", {DType::kF32, {Symbol::kBatch, Symbol::kTokens, count}});
  const HiddenAct act = HiddenAct::parse(name).value_or(HiddenAct());
  const ValueId y = gated ? act.gate(b, x, x, "y") : act.apply(b, x, "y");
  auto graph = b.finish(b.binary(BinaryKind::kAdd, y, b.scalar(0), "out"));
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  if (!graph.ok()) return {};
  auto out = evaluate(*graph,
                      {{"x", Tensor::from_f32({1, 1, count}, kInput)},
                       {"input_ids", Tensor::zeros(DType::kI32, {1, 1})}},
                      {"out"}, nullptr);
  EXPECT_TRUE(out.ok()) << out.status().to_string();
  if (!out.ok()) return {};
  return {(*out)[0].f32().begin(), (*out)[0].f32().end()};
}

double gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }
double gelu_tanh(double x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST(HiddenAct, FormulasByName) {
  const std::pair<std::vector<std::string>, double (*)(double)> cases[] = {
      {{"silu", "swish"}, [](double x) { return x * sigmoid(x); }},
      {{"gelu", "gelu_python"}, gelu},
      {{"gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"},
       gelu_tanh},
      {{"quick_gelu"}, [](double x) { return x * sigmoid(1.702 * x); }},
      {{"relu"}, [](double x) { return std::max(x, 0.0); }},
      {{"relu2"}, [](double x) { return x > 0 ? x * x : 0.0; }},
      {{"tanh"}, [](double x) { return std::tanh(x); }},
  };
  for (const auto& [names, formula] : cases)
    for (const std::string& name : names) {
      ASSERT_TRUE(HiddenAct::parse(name)) << name;
      const auto plain = values(name, false), gated = values(name, true);
      ASSERT_EQ(plain.size(), kInput.size());
      for (size_t i = 0; i < kInput.size(); ++i) {
        const double expected = formula(static_cast<double>(kInput[i]));
        EXPECT_NEAR(plain[i], expected, 2e-6 * (1 + std::fabs(expected))) << name << kInput[i];
        EXPECT_NEAR(gated[i], expected * kInput[i], 2e-5 * (1 + std::fabs(expected)))
            << name << kInput[i];
      }
    }
}

TEST(HiddenAct, OthersAreUnknown) {
  for (const char* name : {"", "mish", "xielu", "gelu_10", "linear"})
    EXPECT_FALSE(HiddenAct::parse(name)) << name;
  EXPECT_FALSE(HiddenAct::parse("relu2")->gated_experts());
  EXPECT_EQ(HiddenAct::parse("quick_gelu")->gated_experts()->sigmoid_scale, 1.702);
}

}  // namespace
}  // namespace pome
