// Transforms of quantize/transform.h with statistics that a calibration measured.
#include <gtest/gtest.h>

#include <memory>

#include "pipeline/calibrate.h"
#include "quantize/transform.h"
#include "quantize/transform_maps.h"
#include "support/graphs.h"
#include "support/transforms.h"
#include "support/zoo.h"

namespace pome {
namespace {

using test::done;
using test::encodings_of;
using test::graph_of;
using test::relative_difference;

constexpr uint64_t kSeed = 5;

ActivationStatistics statistics_of(const Graph& graph) {
  auto made = calibrate(graph, test::some_ids(graph, 96), {}, {});
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return std::move(made->statistics);
}

// What is foretold of the activations is what a run of the changed graph shows.
TEST(Transform, CarriesStatisticsAlong) {
  for (const char* name : {"zoo/llama3", "zoo/mixtral"}) {
    const Graph graph = graph_of(test::kModels + name, 64);
    const ActivationStatistics before = statistics_of(graph);
    Transformed made = done(fold_norm_gains(graph, before));
    made = done(rotate_residual(made.graph, made.statistics, kSeed, true));
    made = done(rotate_values(made.graph, made.statistics, kSeed));
    made = done(order_units(made.graph, made.statistics));
    made = done(scale_units(made.graph, made.statistics));
    const ActivationStatistics seen = statistics_of(made.graph);
    ASSERT_EQ(made.statistics.size(), seen.size());
    for (const auto& [weight, moments] : seen) {
      const auto& foretold = made.statistics.at(weight);
      ASSERT_EQ(foretold.size(), moments.size()) << weight;
      for (size_t i = 0; i < moments.size(); ++i) {
        ASSERT_EQ(foretold[i] == nullptr, moments[i] == nullptr) << weight;
        if (!moments[i]) continue;
        EXPECT_LT(relative_difference(moments[i]->second, foretold[i]->second), 1e-4) << weight;
      }
    }
    EXPECT_EQ(made.statistics.at("layers.0.attention.q.weight")[0],
              made.statistics.at("layers.0.attention.k.weight")[0]);
  }
}

// The same model, but some channels behind the norms are large and their columns small, as those of
// large models are.
Graph with_outliers(Graph graph) {
  auto wide = std::make_shared<BasisMap>(), narrow = std::make_shared<BasisMap>();
  wide->size = narrow->size = graph.info.hidden_size;
  for (int64_t i = 0; i < wide->size; ++i) {
    wide->scale.push_back(i % 16 == 3 ? 16.0f : 1.0f);
    narrow->scale.push_back(i % 16 == 3 ? 1 / 16.0f : 1.0f);
  }
  for (Constant& constant : graph.constants) {
    if (constant.name.ends_with("_norm.weight"))
      constant.data = map_columns(constant.data, wide);
    else if (constant.role == Constant::Role::kMatrix &&
             (constant.name.find("attention.o") == std::string::npos) &&
             (constant.name.find("mlp.down") == std::string::npos))
      constant.data = map_columns(constant.data, narrow);
  }
  return graph;
}

TEST(ChooseTransforms, FoldsGainsThatPalettesSufferFrom) {
  const Graph graph = with_outliers(graph_of(test::kModels + "zoo/llama3", 64));
  auto chosen = choose_transforms(graph, encodings_of(graph, "lut4"), statistics_of(graph), {});
  ASSERT_TRUE(chosen.ok()) << chosen.status().to_string();
  ASSERT_EQ(chosen->tried.size(), transform_names().size());
  EXPECT_TRUE(chosen->tried[0].used);
  EXPECT_LT(chosen->tried[0].loss, 0.95);
}

}  // namespace
}  // namespace pome
