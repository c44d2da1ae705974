// Real models against logits recorded from Hugging Face transformers, with the reference evaluator.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "formats/checkpoint.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "support/zoo.h"

namespace pome {
namespace {

const std::string kTales = POME_SOURCE_DIR "/models/tales";
const std::string kData = POME_SOURCE_DIR "/../shared/data/models";

std::unique_ptr<Runner> open(const std::string& path) {
  auto checkpoint = open_checkpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  auto graph = build_graph(*checkpoint);
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  auto runner = reference_runner({std::move(*graph)}, {2, 0});
  EXPECT_TRUE(runner.ok()) << runner.status().to_string();
  return std::move(*runner);
}

std::vector<float> logits_of(Runner& runner, const std::vector<int32_t>& ids) {
  std::vector<float> out(ids.size() * static_cast<size_t>(runner.info().vocab_size));
  EXPECT_TRUE(runner.truncate(0).ok());
  EXPECT_TRUE(runner.prefill(ids, LogitsOf::kAll, out).ok());
  return out;
}

TEST(Tales, LogitsEqualTheRecordedOnes) {
  const auto runner = open(kTales);
  const Tensor expected = *test::read_npy(kTales + "/golden/logits.npy");
  const auto ids = test::read_ids(kTales + "/golden/ids.txt");
  EXPECT_LE(test::largest_difference(logits_of(*runner, ids), expected.f32()), 1e-3);
}

TEST(Tales, LossOverALongContext) {
  const auto runner = open(kTales);
  const auto ids = test::read_ids(kTales + "/golden/long_ids.txt");
  const Tensor nll = *test::read_npy(kTales + "/golden/long_nll.npy"),
               rows = *test::read_npy(kTales + "/golden/long_rows.npy");
  const auto logits = logits_of(*runner, ids);
  const size_t vocab = static_cast<size_t>(runner->info().vocab_size);
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    double sum = 0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[t * vocab + i]));
    EXPECT_NEAR(std::log(sum) - logits[t * vocab + static_cast<size_t>(ids[t + 1])], nll.f32()[t],
                1e-3)
        << t;
  }
  const size_t at[] = {99, 199, 255, ids.size() - 1};
  for (size_t r = 0; r < 4; ++r)
    EXPECT_LE(test::largest_difference(std::span(logits).subspan(at[r] * vocab, vocab),
                                       rows.f32().subspan(r * vocab, vocab)),
              1e-3);
}

TEST(Tales, GreedyContinuationIsTheRecordedOne) {
  const auto runner = open(kTales);
  const auto expected = test::read_ids(kTales + "/golden/greedy.txt");
  std::vector<float> logits(static_cast<size_t>(runner->info().vocab_size));
  ASSERT_TRUE(runner->prefill(std::span(expected).first(16), LogitsOf::kLast, logits).ok());
  for (size_t i = 16; i < expected.size(); ++i) {
    const auto best = std::max_element(logits.begin(), logits.end());
    const int32_t id = static_cast<int32_t>(best - logits.begin());
    if (id != expected[i]) {
      // The path may fork legitimately where two logits are within 0.01.
      ASSERT_LT(*best - logits[static_cast<size_t>(expected[i])], 0.01f) << "step " << i;
      return;
    }
    ASSERT_TRUE(runner->decode(id, logits).ok());
  }
}

TEST(TinyStories, GgufGivesTheLogitsOfSafetensors) {
  if (!std::ifstream(kData + "/tinystories-656k-hf/config.json"))
    GTEST_SKIP() << "needs ../shared/data/models";
  const std::vector<int32_t> ids = {1, 420, 99, 1500, 7, 8, 300, 1024, 2000, 77};
  const auto original = open(kData + "/tinystories-656k-hf"),
             q8 = open(kData + "/tinystories-656k-gguf/TinyStories-656K-Q8_0.gguf"),
             q2 = open(kData + "/tinystories-656k-gguf/TinyStories-656K-Q2_K.gguf");
  const auto expected = logits_of(*original, ids);
  const auto relative = [&](const std::vector<float>& got) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < got.size(); ++i)
      error += std::pow(got[i] - expected[i], 2), norm += std::pow(expected[i], 2);
    return std::sqrt(error / norm);
  };
  // A wrong row order or table gives an error near or above 1.
  EXPECT_LT(relative(logits_of(*q8, ids)), 0.02);
  EXPECT_LT(relative(logits_of(*q2, ids)), 0.5);
}

}  // namespace
}  // namespace pome
