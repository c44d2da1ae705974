// A decode step and the choice of its token take no memory from the heap.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine/tiny_graph.h"
#include "support/allocations.h"

namespace pome {
namespace {

TEST(DecodeAllocation, TheCounterCounts) {
  if (!test::kAllocationsAreCounted) GTEST_SKIP() << "a sanitizer has its own operator new";
  const int64_t before = test::allocations();
  const std::vector<int> some(static_cast<size_t>(before % 7 + 1));
  EXPECT_EQ(test::allocations(), before + 1) << some.size();
}

std::vector<TinyConfig> configs() {
  TinyConfig plain, mixture, normed;
  plain.encoding = Encoding::plain(EncodingKind::kQ8_0);
  plain.final_softcap = 30;
  mixture = plain;
  mixture.name = "mixture";
  mixture.experts = 4;
  mixture.experts_per_token = 2;
  mixture.bias = true;
  normed = plain;
  normed.name = "layer_norm";
  normed.layer_norm = normed.bias = true;
  normed.gated = false;
  normed.learned_positions = 64;
  normed.encoding = Encoding::plain(EncodingKind::kBF16);
  return {plain, mixture, normed};
}

TEST(DecodeAllocation, NoneInAStepOnOneThreadOrTwo) {
  for (const TinyConfig& config : configs()) {
    const Graph graph = TinyGraph(config).build();
    for (const bool exact : {true, false}) {
      for (const int threads : {1, 2}) {
        PlanOptions options;
        options.exact = exact;
        options.threads = threads;
        auto plan = compile(graph, options);
        ASSERT_TRUE(plan.ok()) << plan.status().to_string();
        auto session = (*plan)->new_session();
        ASSERT_TRUE(session.ok()) << session.status().to_string();
        std::vector<float> logits(static_cast<size_t>(graph.info.vocab_size));
        const std::vector<int32_t> prompt = {1, 2, 3};
        ASSERT_TRUE((*session)->prefill(prompt, LogitsOf::kLast, logits).ok());
        int64_t before = 0;
        for (int32_t id = 4; id < 12; ++id) {
          ASSERT_TRUE((*session)->decode(id, logits).ok());
          if (id == 4) before = test::allocations();  // behind the first step
        }
        EXPECT_EQ(test::allocations(), before)
            << config.name << (exact ? " exact " : " fast ") << threads << " threads";
      }
    }
  }
}

TEST(DecodeAllocation, NoneInSampling) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 37 % 1000) / 90;
  const std::vector<int32_t> context(200, 3);
  SamplerOptions greedy, top_k, top_p;
  top_k.temperature = top_p.temperature = 1;
  top_k.top_k = 40;
  top_p.top_p = 0.99;
  top_p.repeat_penalty = 1.1;
  for (const SamplerOptions& options : {greedy, top_k, top_p}) {
    Sampler sampler(options);
    (void)sampler.sample(logits, context);
    const int64_t before = test::allocations();
    for (int i = 0; i < 100; ++i) (void)sampler.sample(logits, context);
    EXPECT_EQ(test::allocations(), before);
  }
}

}  // namespace
}  // namespace pome
