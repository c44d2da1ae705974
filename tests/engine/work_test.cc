// What a plan says it reads and multiplies, against counts by hand; profiles.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "graph/builder.h"
#include "models/models.h"

namespace pome {
namespace {

Graph tales() {
  auto checkpoint = open_checkpoint(POME_SOURCE_DIR "/models/tales", {});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  auto graph = build_graph(*checkpoint, {});
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return std::move(*graph);
}

// The embedded model: hidden 256, 8 layers, 4 heads and 2 key heads of 64, width 768, vocabulary
// 4096 with one table for embedding and logits, bf16.
constexpr uint64_t kLayer = 256 * 256 * 2 + 2 * 128 * 256 + 3 * 768 * 256, kHead = 4096 * 256;

TEST(PlanWork, CountsWeightsCacheAndProducts) {
  const auto plan = compile(tales(), {});
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  const Work one = (*plan)->work(1, 0);
  EXPECT_EQ(one.weight_macs(), 8 * kLayer + kHead);
  EXPECT_EQ(one.f32_macs, one.weight_macs());
  EXPECT_EQ(one.weight_bytes, 2 * (8 * kLayer + kHead + 256));
  EXPECT_EQ(one.cache_bytes, 8u * 2 * 2 * 64 * 4);
  EXPECT_EQ(one.attention_macs, 8u * 4 * 2 * 64);

  const Work later = (*plan)->work(1, 99);
  EXPECT_EQ(later.weight_bytes, one.weight_bytes);
  EXPECT_EQ(later.cache_bytes, 100 * one.cache_bytes);
  EXPECT_EQ(later.attention_macs, 100 * one.attention_macs);

  // Logits are those of one token, and so is all behind the last attention; token t sees t + 1
  // keys.
  const Work many = (*plan)->work(10, 0);
  constexpr uint64_t kBehind = 256 * 256 + 3 * 768 * 256;
  EXPECT_EQ(many.weight_macs(), 10 * 8 * kLayer - 9 * kBehind + kHead);
  EXPECT_EQ(many.attention_macs, 55 * one.attention_macs);
}

// Mixtral of the collection: some of its experts run for a token.
TEST(PlanWork, CountsChosenExpertsOnly) {
  auto checkpoint = open_checkpoint(POME_SOURCE_DIR "/models/zoo/mixtral", {});
  ASSERT_TRUE(checkpoint.ok());
  const auto graph = build_graph(*checkpoint, {});
  ASSERT_TRUE(graph.ok());
  const auto plan = compile(*graph, {});
  ASSERT_TRUE(plan.ok());
  const auto& config = checkpoint->config;
  const auto of = [&](const char* key) { return config[key].get<uint64_t>(); };
  const uint64_t expert = 3 * of("hidden_size") * of("intermediate_size");
  const uint64_t layers = of("num_hidden_layers"), all = of("num_local_experts");
  ASSERT_LT(of("num_experts_per_tok"), all);
  const Work one = (*plan)->work(1, 0);
  uint64_t parameters = 0;
  for (const CheckpointTensor& tensor : checkpoint->tensors)  // one table for ids and logits
    if (tensor.shape.size() == 2)
      parameters += static_cast<uint64_t>(tensor.shape[0] * tensor.shape[1]);
  EXPECT_EQ(one.weight_macs(), parameters - layers * expert * (all - of("num_experts_per_tok")));
}

TEST(PlanWork, ProfileCountsEveryStepOfEveryCallAndChangesNothing) {
  const Graph graph = tales();
  PlanOptions options;
  options.threads = 2;
  const auto plain = compile(graph, options);
  options.profile = std::make_shared<StepProfile>();
  const auto timed = compile(graph, options);
  ASSERT_TRUE(plain.ok() && timed.ok());
  EXPECT_EQ((*plain)->describe(), (*timed)->describe());
  EXPECT_EQ((*plain)->work(3, 5).bytes(), (*timed)->work(3, 5).bytes());

  std::vector<float> logits[2];
  int at = 0;
  for (const auto& plan : {*plain, *timed}) {
    auto session = plan->new_session();
    ASSERT_TRUE(session.ok());
    logits[at].resize(static_cast<size_t>((*session)->info().vocab_size));
    for (const int32_t id : {5, 6, 7}) ASSERT_TRUE((*session)->decode(id, logits[at]).ok());
    ++at;
  }
  EXPECT_EQ(logits[0], logits[1]);
  uint64_t linears = 0, bytes = 0;
  for (const StepProfile::Entry& entry : options.profile->steps) {
    EXPECT_EQ(entry.calls, 3u) << entry.kind;
    linears += entry.kind == "linear";
    bytes += entry.work.weight_bytes;
  }
  EXPECT_GE(linears, 8u);
  EXPECT_EQ(bytes, 3 * (*plain)->work(1, 0).weight_bytes);
  EXPECT_EQ(options.profile->steps.back().kind, "linear (logits)");
  options.profile->reset();
  EXPECT_EQ(options.profile->steps[0].calls, 0u);
  EXPECT_EQ(options.profile->steps[0].seconds, 0);
}

}  // namespace
}  // namespace pome
