// Every architecture of the model collection against Hugging Face transformers (fp32 on the stored
// weights), with the reference evaluator: logits, losses over 300 tokens, the greedy path.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "formats/checkpoint.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "support/npy.h"

namespace pome {
namespace {

const std::string kZoo = POME_SOURCE_DIR "/../shared/models/zoo/";
constexpr double kTolerance = 1e-3;

std::vector<std::string> names() {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(kZoo, error))
    if (std::filesystem::exists(entry.path() / "golden/logits.npy"))
      found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  if (found.empty()) found.push_back("none");
  return found;
}

class Zoo : public testing::TestWithParam<std::string> {
 protected:
  std::vector<int32_t> ids(const std::string& name) const {
    std::ifstream in(folder() + "golden/" + name);
    std::vector<int32_t> out;
    for (int32_t id; in >> id;) out.push_back(id);
    return out;
  }
  std::string folder() const { return kZoo + GetParam() + "/"; }
  std::string skip_reason;

  // Null with a reason to skip when the family is unknown or the collection missing.
  std::unique_ptr<Runner> open(int64_t context) {
    if (GetParam() == "none") return skip_reason = "needs ../shared/models/zoo", nullptr;
    const auto checkpoint = open_checkpoint(folder());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    if (!checkpoint.ok()) return nullptr;
    auto graph = build_graph(*checkpoint, {context});
    if (!graph.ok() && graph.status().code() == StatusCode::kUnsupported &&
        graph.status().to_string().find("model_type") != std::string::npos)
      return skip_reason = graph.status().to_string(), nullptr;
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    if (!graph.ok()) return nullptr;
    auto runner = reference_runner({std::move(*graph)}, {2, 0});
    EXPECT_TRUE(runner.ok()) << runner.status().to_string();
    return runner.ok() ? std::move(*runner) : nullptr;
  }
};

double max_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (std::isnan(a[i])) return HUGE_VAL;
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

TEST_P(Zoo, LogitsEqualTheRecordedOnes) {
  const auto prompt = ids("ids.txt");
  const auto runner = open(static_cast<int64_t>(prompt.size()));
  if (!skip_reason.empty()) GTEST_SKIP() << skip_reason;
  ASSERT_TRUE(runner);
  const auto expected = test::read_npy(folder() + "golden/logits.npy");
  ASSERT_TRUE(expected);
  std::vector<float> logits(prompt.size() * static_cast<size_t>(runner->info().vocab_size));
  ASSERT_TRUE(runner->prefill(prompt, LogitsOf::kAll, logits).ok());
  EXPECT_LE(max_difference(logits, expected->f32()), kTolerance);
}

TEST_P(Zoo, LossesOverALongContext) {
  const auto text = ids("long_ids.txt");
  const auto runner = open(static_cast<int64_t>(text.size()));
  if (!skip_reason.empty()) GTEST_SKIP() << skip_reason;
  ASSERT_TRUE(runner);
  const auto nll = test::read_npy(folder() + "golden/long_nll.npy");
  const auto rows = test::read_npy(folder() + "golden/long_rows.npy");
  ASSERT_TRUE(nll && rows);
  const size_t vocab = static_cast<size_t>(runner->info().vocab_size);
  std::vector<float> logits(text.size() * vocab);
  ASSERT_TRUE(runner->prefill(text, LogitsOf::kAll, logits).ok());
  for (size_t t = 0; t + 1 < text.size(); ++t) {
    const std::span<const float> row = std::span(logits).subspan(t * vocab, vocab);
    const double largest = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) sum += std::exp(x - largest);
    ASSERT_NEAR(largest + std::log(sum) - row[static_cast<size_t>(text[t + 1])], nll->f32()[t],
                kTolerance)
        << "position " << t;
  }
  const size_t at[] = {99, 199, 255, text.size() - 1};
  for (size_t r = 0; r < 4; ++r)
    EXPECT_LE(max_difference(std::span(logits).subspan(at[r] * vocab, vocab),
                             rows->f32().subspan(r * vocab, vocab)),
              kTolerance)
        << "row " << at[r];
}

TEST_P(Zoo, GreedyContinuationIsTheRecordedOne) {
  const auto expected = ids("greedy.txt");
  const auto runner = open(static_cast<int64_t>(expected.size()));
  if (!skip_reason.empty()) GTEST_SKIP() << skip_reason;
  ASSERT_TRUE(runner);
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

INSTANTIATE_TEST_SUITE_P(Models, Zoo, testing::ValuesIn(names()),
                         [](const testing::TestParamInfo<std::string>& param) {
                           std::string name = param.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

}  // namespace
}  // namespace pome
