// The engine against Hugging Face transformers (fp32 on the stored weights): recorded logits,
// losses and greedy paths of the models beside the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "models/models.h"

namespace pome {
namespace {

const std::string kModels = std::string(POME_SOURCE_DIR) + "/../shared/models/";
constexpr float kTolerance = 1e-3f;  // models/README.md

// Version 1 of NumPy's array file: magic, header length at byte 8, then float32 rows.
std::vector<float> read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.size() < 10) return {};
  const size_t header = static_cast<uint8_t>(bytes[8]) + 256u * static_cast<uint8_t>(bytes[9]);
  EXPECT_NE(std::string(bytes.data() + 10, header).find("'<f4'"), std::string::npos) << path;
  std::vector<float> out((bytes.size() - 10 - header) / sizeof(float));
  std::memcpy(out.data(), bytes.data() + 10 + header, out.size() * sizeof(float));
  return out;
}
std::vector<int32_t> read_ids(const std::string& path) {
  std::ifstream file(path);
  std::vector<int32_t> ids;
  for (int32_t id; file >> id;) ids.push_back(id);
  return ids;
}

// Every model of the collection that build_graph knows.
std::vector<std::string> model_folders() {
  std::vector<std::string> found;
  std::error_code error;
  if (std::filesystem::exists(kModels + "tales")) found.push_back("tales");
  for (const auto& entry : std::filesystem::directory_iterator(kModels + "zoo", error))
    found.push_back("zoo/" + entry.path().filename().string());
  std::sort(found.begin(), found.end());
  if (found.empty()) found.push_back("");
  return found;
}

class EngineGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam().empty()) GTEST_SKIP() << "no models in " << kModels;
    folder_ = kModels + GetParam();
    if (!std::filesystem::exists(folder_ + "/golden/logits.npy"))
      GTEST_SKIP() << "no recorded values in " << folder_;
    auto checkpoint = open_checkpoint(folder_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    // Rope factors are chosen by the length that a test declares, as recorded.
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    BuildOptions options;
    options.context = test.rfind("LossesOfALongText", 0) == 0 ? 300 : 80;
    auto graph = build_graph(*checkpoint, options);
    if (!graph.ok() && graph.status().code() == StatusCode::kUnsupported)
      GTEST_SKIP() << graph.status().to_string();
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    graph_ = std::move(*graph);
  }

  std::unique_ptr<Runner> session(const PlanOptions& options) {
    auto plan = compile(graph_, options);
    EXPECT_TRUE(plan.ok()) << plan.status().to_string();
    if (!plan.ok()) return nullptr;
    auto made = (*plan)->new_session();
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? std::move(*made) : nullptr;
  }
  int64_t vocab() const { return graph_.info.vocab_size; }

  std::string folder_;
  Graph graph_;
};

float largest_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::fabs(a[i] - b[i]));
  return largest;
}

TEST_P(EngineGolden, LogitsOnEveryIsa) {
  const auto ids = read_ids(folder_ + "/golden/ids.txt");
  const auto expected = read_npy(folder_ + "/golden/logits.npy");
  std::vector<float> logits(ids.size() * static_cast<size_t>(vocab()));
  for (const Isa isa : available_isas()) {
    PlanOptions options;
    options.isa = isa;
    const auto runner = session(options);
    ASSERT_TRUE(runner);
    const Status status = runner->prefill(ids, LogitsOf::kAll, logits);
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_LT(largest_difference(logits, expected), kTolerance) << to_string(isa);
  }
}

TEST_P(EngineGolden, LossesOfALongText) {
  const auto ids = read_ids(folder_ + "/golden/long_ids.txt");
  const auto expected = read_npy(folder_ + "/golden/long_nll.npy");
  const auto rows = read_npy(folder_ + "/golden/long_rows.npy");
  PlanOptions options;
  options.chunk = 64;
  const auto runner = session(options);
  ASSERT_TRUE(runner);
  const auto width = static_cast<size_t>(vocab());
  std::vector<float> logits(ids.size() * width);
  ASSERT_TRUE(runner->prefill(ids, LogitsOf::kAll, logits).ok());
  double worst = 0;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const float* row = logits.data() + t * width;
    const double largest = *std::max_element(row, row + width);
    double sum = 0;
    for (size_t i = 0; i < width; ++i) sum += std::exp(row[i] - largest);
    const double nll = largest + std::log(sum) - row[ids[t + 1]];
    worst = std::max(worst, std::fabs(nll - static_cast<double>(expected[t])));
  }
  EXPECT_LT(worst, kTolerance);
  const size_t at[] = {99, 199, 255, ids.size() - 1};
  for (size_t i = 0; i < 4 && (i + 1) * width <= rows.size(); ++i) {
    if (at[i] >= ids.size()) continue;
    EXPECT_LT(largest_difference({logits.data() + at[i] * width, width},
                                 {rows.data() + i * width, width}),
              kTolerance)
        << "row " << at[i];
  }
}

TEST_P(EngineGolden, GreedyPath) {
  const auto path = read_ids(folder_ + "/golden/greedy.txt");
  double margin = 0;
  std::ifstream(folder_ + "/golden/greedy_margin.txt") >> margin;
  if (margin < 0.01) GTEST_SKIP() << "the recorded path may fork: margin " << margin;
  const auto runner = session({});
  ASSERT_TRUE(runner);
  std::vector<float> logits(static_cast<size_t>(vocab()));
  std::vector<int32_t> ids(path.begin(), path.begin() + 16);
  ASSERT_TRUE(runner->prefill(ids, LogitsOf::kLast, logits).ok());
  while (ids.size() < path.size()) {
    ids.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    ASSERT_TRUE(runner->decode(ids.back(), logits).ok());
  }
  EXPECT_EQ(ids, path);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineGolden, testing::ValuesIn(model_folders()),
                         [](const testing::TestParamInfo<std::string>& param) {
                           std::string name = param.param.empty() ? "none" : param.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

}  // namespace
}  // namespace pome
