#include "quantize/transform.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/thread_pool.h"
#include "graph/passes.h"
#include "quantize/transform_maps.h"
#include "support/graphs.h"
#include "support/logits.h"
#include "support/transforms.h"
#include "support/zoo.h"

namespace pome {
namespace {

using test::done;
using test::encodings_of;
using test::graph_of;
using test::relative_difference;
using test::values_of;

constexpr uint64_t kSeed = 5;

std::vector<float> logits_of(const Graph& graph) {
  return test::logits_of(graph, test::some_ids(graph, 24));
}

std::string source_hash_of(const Graph& graph) {
  ThreadPool pool(2);
  auto hashes = hash_graph(graph, &pool);
  EXPECT_TRUE(hashes.ok()) << hashes.status().to_string();
  return hashes->source_hash;
}

// ---- rotations
// ---------------------------------------------------------------------------------

TEST(Rotation, IsOrthogonal) {
  for (const bool keeps_ones : {false, true})
    for (const int64_t n : {1, 2, 3, 7, 12, 64, 96, 180}) {
      const RotationPtr rotation = Rotation::random(n, kSeed, keeps_ones);
      std::vector<float> q(static_cast<size_t>(n * n), 0.0f);
      for (int64_t i = 0; i < n; ++i) {
        q[static_cast<size_t>(i * n + i)] = 1;
        rotation->apply(q.data() + i * n);
      }
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double product = 0;
          for (int64_t k = 0; k < n; ++k)
            product += static_cast<double>(q[static_cast<size_t>(i * n + k)]) *
                       q[static_cast<size_t>(j * n + k)];
          ASSERT_NEAR(product, i == j ? 1 : 0, 2e-6) << n << " " << i << " " << j;
        }
    }
}

TEST(Rotation, SpreadsOneElementOverAll) {
  for (const bool keeps_ones : {false, true}) {
    std::vector<float> row(768, 0.0f);
    row[5] = 1;
    Rotation::random(768, kSeed, keeps_ones)->apply(row.data());
    for (const float value : row) EXPECT_LT(std::fabs(value), 0.3f);
  }
}

TEST(Rotation, KeepsOnesWhereAsked) {
  for (const int64_t n : {2, 3, 64, 96}) {
    std::vector<float> ones(static_cast<size_t>(n), 1.0f);
    Rotation::random(n, kSeed, true)->apply(ones.data());
    for (const float value : ones) EXPECT_NEAR(value, 1, 1e-5) << n;
  }
}

TEST(Rotation, TakesLanesAsColumns) {
  const RotationPtr rotation = Rotation::random(24, kSeed);
  std::vector<float> rows(24 * 5), lane(24);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 17) - 8;
  std::vector<float> all = rows;
  rotation->apply(all.data(), 5);
  for (size_t l = 0; l < 5; ++l) {
    for (size_t i = 0; i < 24; ++i) lane[i] = rows[i * 5 + l];
    rotation->apply(lane.data());
    for (size_t i = 0; i < 24; ++i) EXPECT_EQ(lane[i], all[i * 5 + l]);
  }
}

// ---- constants
// ---------------------------------------------------------------------------------

ConstantDataPtr numbered(const Shape& shape) {
  size_t count = 1;
  for (const int64_t dim : shape) count *= static_cast<size_t>(dim);
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return inline_constant(Tensor::from_f32(shape, std::move(values)));
}

TEST(MapRows, GivesTheSameInTilesOfAnyOrder) {
  const ConstantDataPtr in = numbered({3, 8, 5});
  auto rotated = std::make_shared<BasisMap>(), ordered = std::make_shared<BasisMap>();
  rotated->size = ordered->size = 8;
  rotated->blocks = {Rotation::random(8, kSeed)};
  ordered->sets = 3;
  for (int32_t i = 0; i < 24; ++i) ordered->order.push_back((i * 3 + i / 8) % 8);
  for (const auto& map : {rotated, ordered}) {
    const ConstantDataPtr out = map_rows(in, map, make_piece_cache());
    EXPECT_EQ(&out->canonical(), in.get());
    const std::vector<float> whole = values_of(*out);
    std::vector<float> part(5 * 7);
    for (const int64_t row : {17, 3, 11, 0}) {
      ASSERT_TRUE(out->read_f32(row, 7, part.data()).ok());
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + row * 5)) << row;
    }
  }
}

TEST(MapRows, TurnsBackWithTheColumnsOfTheNextWeight) {
  const ConstantDataPtr first = numbered({8, 4}), second = numbered({3, 8});
  auto map = std::make_shared<BasisMap>();
  map->size = 8;
  map->blocks = {Rotation::random(8, kSeed)};
  const std::vector<float> a = values_of(*map_rows(first, map, make_piece_cache())),
                           b = values_of(*map_columns(second, map)), a0 = values_of(*first),
                           b0 = values_of(*second);
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 4; ++j) {
      double now = 0, before = 0;
      for (size_t k = 0; k < 8; ++k) {
        now += static_cast<double>(b[i * 8 + k]) * a[k * 4 + j];
        before += static_cast<double>(b0[i * 8 + k]) * a0[k * 4 + j];
      }
      EXPECT_NEAR(now, before, 1e-5 * before);
    }
}

// ---- families
// ---------------------------------------------------------------------------------

std::vector<std::string> all_models() {
  std::vector<std::string> out = test::zoo_names();
  for (std::string& name : out) name = "zoo/" + name;
  out.push_back("tales");
  return out;
}

// Where each applies: norms folded, residual streams without and with a place for the gain before
// a tied head, attentions, networks put in order and scaled.
struct Places {
  int64_t norms, residual, residual_inserting, values, order, scale;
};
const std::map<std::string, Places> kPlaces = {
    // Latent attention has no values of its own.
    {"zoo/deepseek-mla", {13, 1, 1, 0, 5, 5}},
    {"zoo/deepseek-v2-lite", {10, 1, 1, 0, 5, 5}},
    {"zoo/gemma", {8, 0, 1, 4, 4, 4}},
    // Gains behind the branches.
    {"zoo/gemma2", {8, 0, 0, 4, 4, 4}},
    {"zoo/gemma3", {12, 0, 0, 6, 6, 6}},
    // Units with limits.
    {"zoo/gpt-oss", {9, 1, 1, 4, 4, 0}},
    // Experts stay the integers that they are.
    {"zoo/gpt-oss-mxfp4", {5, 0, 0, 4, 0, 0}},
    {"zoo/gpt2", {8, 0, 1, 4, 4, 0}},
    {"zoo/gptneo", {8, 0, 1, 4, 4, 0}},
    {"zoo/gptneox", {9, 1, 1, 4, 4, 0}},
    {"zoo/latent-kv", {7, 1, 1, 0, 6, 0}},
    {"zoo/llama3", {9, 1, 1, 4, 4, 4}},
    {"zoo/mistral", {8, 0, 1, 4, 4, 4}},
    {"zoo/mixtral", {6, 0, 1, 3, 3, 3}},
    {"zoo/phi2", {5, 1, 1, 4, 4, 0}},
    {"zoo/phi3", {8, 0, 1, 4, 4, 4}},
    {"zoo/phi3-longrope", {8, 0, 1, 4, 4, 4}},
    {"zoo/qwen2", {8, 0, 1, 4, 4, 4}},
    {"zoo/qwen2-moe", {7, 1, 1, 3, 6, 6}},
    {"zoo/qwen3", {8, 0, 1, 4, 4, 4}},
    {"zoo/qwen3-moe", {6, 0, 1, 3, 3, 3}},
    {"zoo/smollm3", {8, 0, 1, 4, 4, 4}},
    {"tales", {16, 0, 1, 8, 8, 8}},
};

class TransformOfFamily : public testing::TestWithParam<std::string> {
 protected:
  void expect_same(const Transformed& made, const std::string& what, int64_t places) {
    EXPECT_EQ(made.places, places) << what << ": " << made.obstacle;
    if (made.places == 0) return;
    EXPECT_LT(relative_difference(logits_, logits_of(made.graph)), 1e-4) << what;
    EXPECT_EQ(source_hash_of(made.graph), source_) << what;
  }

  void SetUp() override {
    graph_ = graph_of(test::kModels + GetParam(), 64);
    logits_ = logits_of(graph_);
    source_ = source_hash_of(graph_);
  }
  Graph graph_;
  std::vector<float> logits_;
  std::string source_;
};

TEST_P(TransformOfFamily, LeavesLogitsAndSourceHash) {
  ASSERT_TRUE(kPlaces.count(GetParam())) << "what applies to " << GetParam() << "?";
  const Places& places = kPlaces.at(GetParam());
  const Transformed norms = done(fold_norm_gains(graph_, {}));
  expect_same(norms, "norms", places.norms);
  expect_same(done(rotate_residual(norms.graph, {}, kSeed, false)), "residual", places.residual);
  const Transformed residual = done(rotate_residual(norms.graph, {}, kSeed, true));
  expect_same(residual, "residual, inserting", places.residual_inserting);
  const Transformed values = done(rotate_values(residual.graph, {}, kSeed));
  expect_same(values, "values", places.values);
  const Transformed order = done(order_units(values.graph, {}));
  expect_same(order, "order", places.order);
  expect_same(done(scale_units(order.graph, {})), "scale", places.scale);
  ThreadPool pool(2);
  auto split = split_weights(graph_, &pool);
  ASSERT_TRUE(split.ok()) << split.status().to_string();
  EXPECT_GT(split->tables, 0);
  expect_same({std::move(split->graph), {}, split->networks, {}}, "split", split->networks);
}

// ---- choosing
// ---------------------------------------------------------------------------------

TEST(ChooseTransforms, TakesTheOrderOfUnitsWherePalettesProfit) {
  const Graph graph = graph_of(test::kModels + "tales", 64);
  auto chosen = choose_transforms(graph, encodings_of(graph, "lut3"), {}, {});
  ASSERT_TRUE(chosen.ok()) << chosen.status().to_string();
  ASSERT_EQ(chosen->tried.size(), 1u);  // the others need statistics
  EXPECT_EQ(chosen->tried[0].name, "order");
  EXPECT_TRUE(chosen->tried[0].used);
  EXPECT_LT(chosen->tried[0].loss, 0.98);
  EXPECT_GT(chosen->tried[0].loss, 0.90);
  EXPECT_EQ(chosen->tried[0].places, 8);
}

TEST(ChooseTransforms, ChangesNothingWhereNothingIsRounded) {
  const Graph graph = graph_of(test::kModels + "zoo/llama3", 64);
  auto chosen = choose_transforms(graph, encodings_of(graph, "f16"), {}, {});
  ASSERT_TRUE(chosen.ok());
  EXPECT_TRUE(chosen->tried.empty());
  chosen = choose_transforms(graph, encodings_of(graph, "int4"), {}, {.names = "none"});
  ASSERT_TRUE(chosen.ok());
  EXPECT_TRUE(chosen->tried.empty());
}

TEST(ChooseTransforms, DoesWhatIsListed) {
  const Graph graph = graph_of(test::kModels + "zoo/llama3", 64);
  auto chosen = choose_transforms(graph, encodings_of(graph, "int4"), {},
                                  {.names = "values,residual", .may_insert = true});
  ASSERT_TRUE(chosen.ok());
  ASSERT_EQ(chosen->tried.size(), 2u);
  EXPECT_EQ(chosen->tried[0].name, "residual");
  EXPECT_TRUE(chosen->tried[0].used);
  EXPECT_EQ(chosen->tried[1].name, "values");
  EXPECT_LT(relative_difference(logits_of(graph), logits_of(chosen->graph)), 1e-4);
}

TEST(ChooseTransforms, NamesWhatItKnows) {
  EXPECT_TRUE(check_transforms("auto").ok());
  EXPECT_TRUE(check_transforms("order,norms").ok());
  const Status wrong = check_transforms("order,norm");
  EXPECT_EQ(wrong.code(), StatusCode::kUsage);
  EXPECT_NE(wrong.to_string().find("residual"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Zoo, TransformOfFamily, testing::ValuesIn(all_models()),
                         test::name_of_parameter);

}  // namespace
}  // namespace pome
