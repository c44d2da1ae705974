// Packages whose int8 weights read int8 activations.
#include <cmath>
#include <map>
#include <set>

#include "export/coreml.h"
#include "export/tiny_graph.h"
#include "interp/graph_eval.h"
#include "interp/mil_eval.h"

namespace pome {
namespace {

std::map<std::string, ActivationGrid> grids_of(const Graph& graph) {
  std::map<std::string, ActivationGrid> out;
  for (const Constant& constant : graph.constants)
    if (constant.role == Constant::Role::kMatrix)
      out[constant.name] = constant.name.ends_with("down.weight")
                               ? ActivationGrid{0.0625f, 90, true}
                               : ActivationGrid{0.03125f, 0, false};
  return out;
}
std::string exported(const Graph& graph, const std::string& name,
                     std::map<std::string, ActivationGrid> grids) {
  CoremlOptions options;
  options.context = 24;
  options.chunk = 8;
  options.activations = std::move(grids);
  const std::string path = export_folder(name);
  const auto report = export_coreml(graph, options, path, {});
  EXPECT_TRUE(report.ok()) << report.status().to_string();
  return path;
}
NamedTensors inputs() {
  std::vector<float> mask(8 * 24, -30000.0f);
  for (size_t t = 0; t < 8; ++t)
    for (size_t i = 0; i <= t; ++i) mask[t * 24 + i] = 0;
  return {{"input_ids", Tensor::from_i32({1, 8}, {3, 14, 15, 92, 65, 35, 89, 79})},
          {"position", Tensor::from_i32({1}, {0})},
          {"causal_mask", Tensor::from_f32({1, 1, 8, 24}, mask)}};
}
std::vector<float> logits(MilProgram& program) {
  NamedTensors states;
  const auto out = program.run("prefill", inputs(), &states);
  EXPECT_TRUE(out.ok()) << out.status().to_string();
  if (!out.ok()) return {};
  const auto values = (*out)[0].second.f32();
  return {values.begin(), values.end()};
}
float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float out = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) out = std::max(out, std::abs(a[i] - b[i]));
  return out;
}

TEST(CoremlActivations, AreRoundedOnceForAllThatReadThem) {
  TinyOptions options;
  options.bias = true;
  options.encoding = Encoding::int_blocks(8, 32);
  const Graph graph = tiny_graph(options);
  const auto plain = MilProgram::open(exported(graph, "a_plain", {}), {});
  const auto program = MilProgram::open(exported(graph, "a_int8", grids_of(graph)), {});
  ASSERT_TRUE(plain.ok() && program.ok());

  // What is rounded lies on its grid, next to what it was.
  std::map<std::string, Tensor> seen;
  (*program)->set_observer([&](const std::string& name, const Tensor& value) {
    if (value.defined() && value.dtype() == DType::kF32) seen[name] = value.clone();
  });
  const std::vector<float> rounded = logits(**program);
  (*program)->set_observer(nullptr);
  int around = 0, affine = 0;
  for (const auto& [name, value] : seen) {
    if (!name.ends_with("_rounded")) continue;
    const auto from = seen.find(name.substr(0, name.size() - 8));
    ASSERT_NE(from, seen.end()) << name;
    const bool is_affine = name.find("swiglu") != std::string::npos;
    (is_affine ? affine : around) += 1;
    const float scale = is_affine ? 0.0625f : 0.03125f,
                low = is_affine ? -90 * scale : -128 * scale,
                high = is_affine ? 165 * scale : 127 * scale;
    for (size_t i = 0; i < value.f32().size(); ++i) {
      const float x = from->second.f32()[i], y = value.f32()[i];
      ASSERT_EQ(y / scale, std::nearbyint(y / scale)) << name;
      ASSERT_LE(std::abs(y - std::clamp(x, low, high)), scale / 2) << name;
    }
  }
  // Of two layers: what q k v read, what o reads, what gate and up read, and what down reads.
  EXPECT_EQ(around, 6);
  EXPECT_EQ(affine, 2);

  // Without that rounding it is the same computation, to the bit.
  const std::vector<float> wanted = logits(**plain);
  EXPECT_GT(largest_difference(rounded, wanted), 0.0f);
  EXPECT_LT(largest_difference(rounded, wanted), 0.5f);
  (*program)->round_activations(false);
  EXPECT_EQ(largest_difference(logits(**program), wanted), 0.0f);
  (*program)->round_activations(true);
  EXPECT_EQ(largest_difference(logits(**program), rounded), 0.0f);
}

TEST(CoremlActivations, OfExpertsToo) {
  TinyOptions options;
  options.experts = 4;
  options.encoding = Encoding::int_blocks(8, 32);
  const Graph graph = tiny_graph(options);
  const auto program = MilProgram::open(exported(graph, "a_experts", grids_of(graph)), {});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  std::set<std::string> rounded;
  (*program)->set_observer([&](const std::string& name, const Tensor&) {
    if (name.ends_with("_rounded")) rounded.insert(name);
  });
  EXPECT_FALSE(logits(**program).empty());
  // q k v, o, the router, and both ways of the experts, twice.
  EXPECT_EQ(rounded.size(), 10u);
}

}  // namespace
}  // namespace pome
