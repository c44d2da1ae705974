#include "pipeline/activations.h"

#include <gtest/gtest.h>

#include "pipeline/convert.h"
#include "quantize/quantize.h"
#include "support/graphs.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

constexpr int64_t kContext = 128;

Graph quantized_graph(const Graph& graph, const char* scheme, const char* embedding) {
  const auto recipe = parse_recipe(scheme, embedding);
  EXPECT_TRUE(recipe.ok());
  auto made = quantize(graph, *recipe);
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return std::move(made->graph);
}

TEST(Int8Activations, OneGridForEachValueThatInt8WeightsRead) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  WorkContext work;
  work.threads = 2;
  const std::vector<int32_t> ids = some_ids(graph, 128);
  const auto made = int8_activations(graph, quantized_graph(graph, "int8", "f16"), ids,
                                     RangeMethod::kPercentile, work);
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  // Four values in each of eight layers; the head's weight is not int8.
  EXPECT_EQ(made->values.size(), 32u);
  EXPECT_EQ(made->grids.count("embedding.weight"), 0u);
  ASSERT_EQ(made->grids.count("layers.0.attention.q.weight"), 1u);
  EXPECT_EQ(made->grids.at("layers.0.attention.q.weight"),
            made->grids.at("layers.0.attention.v.weight"));
  for (const ActivationValue& value : made->values)
    EXPECT_TRUE(!value.choice.grid || value.choice.error.all <= kMostGridError);

  work.threads = 1;
  const auto again = int8_activations(graph, quantized_graph(graph, "int8", "f16"), ids,
                                      RangeMethod::kPercentile, work);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->grids, made->grids);
}

TEST(Int8Activations, NeedInt8Weights) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const auto made = int8_activations(graph, quantized_graph(graph, "int4", "f16"),
                                     some_ids(graph, 16), RangeMethod::kMinMax, {});
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::kUsage);
}

TEST(Int8Activations, FlagsThatDoNotGoTogether) {
  ConvertOptions options;
  options.model = POME_SOURCE_DIR "/models/tales";
  options.output = "unused";
  const auto refused = [](const ConvertOptions& given) {
    return convert(given, {}).status().code() == StatusCode::kUsage;
  };
  ConvertOptions one = options;
  one.activations = "int8";
  EXPECT_TRUE(refused(one));  // no text
  one.calibrate = POME_SOURCE_DIR "/data/held-out.txt";
  one.target = "onnx";
  EXPECT_TRUE(refused(one));
  one.target = "coreml";
  one.activations = "int4";
  EXPECT_TRUE(refused(one));
  one.activations = "int8";
  one.activation_range = "widest";
  EXPECT_TRUE(refused(one));

  ConvertOptions pruned = options;
  pruned.prune = "2:4";
  pruned.weights = "lut4x2";
  EXPECT_TRUE(refused(pruned));
  pruned.weights = "int4";
  pruned.prune_below = 0.01;
  EXPECT_TRUE(refused(pruned));
  pruned.prune_below = 0;
  for (const char* target : {"onnx", "gguf", "mlc"}) {
    pruned.target = target;
    EXPECT_TRUE(refused(pruned)) << target;
  }
  pruned.prune = "";
  pruned.weights = "sparse-int4";
  pruned.target = "onnx";
  EXPECT_TRUE(refused(pruned));
}

}  // namespace
}  // namespace pome
