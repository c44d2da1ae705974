// Every architecture of the model collection against Hugging Face transformers (fp32 on the stored
// weights), with the reference evaluator: logits, losses over 300 tokens, the greedy path.
#include <set>

#include "formats/checkpoint.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

class Zoo : public testing::TestWithParam<std::string> {
 protected:
  static std::vector<int32_t> ids(const std::string& name) {
    return read_ids(golden() + name + ".txt");
  }
  static std::vector<float> floats(const std::string& name) {
    return read_floats(golden() + name + ".npy");
  }
  static std::string golden() { return kZoo + GetParam() + "/golden/"; }

  static std::unique_ptr<Runner> open(size_t context) {
    const auto checkpoint = open_checkpoint(kZoo + GetParam());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    if (!checkpoint.ok()) return nullptr;
    auto graph = build_graph(*checkpoint, {static_cast<int64_t>(context)});
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    if (!graph.ok()) return nullptr;
    auto runner = reference_runner({std::move(*graph)}, {2, 0});
    EXPECT_TRUE(runner.ok()) << runner.status().to_string();
    return runner.ok() ? std::move(*runner) : nullptr;
  }
};

TEST_P(Zoo, LogitsEqualTheRecordedOnes) {
  const auto prompt = ids("ids");
  const auto runner = open(prompt.size());
  ASSERT_TRUE(runner);
  std::vector<float> logits(prompt.size() * static_cast<size_t>(runner->info().vocab_size));
  ASSERT_TRUE(runner->prefill(prompt, LogitsOf::kAll, logits).ok());
  const double difference = largest_difference(logits, floats("logits"));
  EXPECT_LE(difference, kGoldenTolerance);
  record(GetParam(), "reference", difference);
}

TEST_P(Zoo, LossesOverALongContext) {
  const auto text = ids("long_ids");
  const auto runner = open(text.size());
  ASSERT_TRUE(runner);
  const auto nll = floats("long_nll"), rows = floats("long_rows");
  const size_t vocab = static_cast<size_t>(runner->info().vocab_size);
  ASSERT_EQ(nll.size(), text.size() - 1);
  ASSERT_EQ(rows.size(), 4 * vocab);
  std::vector<float> logits(text.size() * vocab);
  ASSERT_TRUE(runner->prefill(text, LogitsOf::kAll, logits).ok());
  const auto row = [&](size_t t) { return std::span(logits).subspan(t * vocab, vocab); };
  for (size_t t = 0; t < nll.size(); ++t)
    ASSERT_NEAR(log_sum(row(t)) - row(t)[static_cast<size_t>(text[t + 1])], nll[t],
                kGoldenTolerance)
        << "position " << t;
  const size_t at[] = {99, 199, 255, text.size() - 1};
  double difference = 0;
  for (size_t r = 0; r < 4; ++r)
    difference = std::max(
        difference, largest_difference(row(at[r]), std::span(rows).subspan(r * vocab, vocab)));
  EXPECT_LE(difference, kGoldenTolerance);
  record(GetParam(), "reference", difference);
}

TEST_P(Zoo, GreedyContinuationIsTheRecordedOne) {
  const auto expected = ids("greedy");
  const auto runner = open(expected.size());
  ASSERT_TRUE(runner);
  expect_greedy_path(*runner, expected);
}

INSTANTIATE_TEST_SUITE_P(Models, Zoo, testing::ValuesIn(zoo_names()), name_of_parameter);

TEST(ZooFamilies, EveryFamilyOfTheRegistryHasAModel) {
  std::set<std::string> seen;
  for (const std::string& name : zoo_names()) {
    const auto checkpoint = open_checkpoint(kZoo + name);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    const auto info = read_model_info(*checkpoint);
    ASSERT_TRUE(info.ok()) << info.status().to_string();
    seen.insert(info->family);
    record(name, "family", info->family);
  }
  std::string all;
  for (const std::string& family : supported_families()) {
    EXPECT_TRUE(seen.count(family)) << family << ": no model in " << kZoo;
    all += (all.empty() ? "" : " ") + family;
  }
  RecordProperty("families", all);
}

}  // namespace
}  // namespace pome
