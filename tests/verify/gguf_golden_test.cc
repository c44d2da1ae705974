// Every model of the collection as a GGUF file that convert wrote: read from disk and executed by
// the engine against the logits that transformers gives.
#include "base/temp_folder.h"
#include "pipeline/convert.h"
#include "support/zoo.h"
#include "verify/model.h"

namespace pome {
namespace {

using namespace test;

class ZooGguf : public testing::TestWithParam<std::string> {
 protected:
  // Mean KL and the largest difference from the recorded logits; nullopt where a file cannot say
  // the model.
  std::optional<std::pair<double, double>> measure(const std::string& weights) {
    ConvertOptions options;
    options.model = kZoo + GetParam();
    options.output = folder_ / (weights + ".gguf");
    options.target = "gguf";
    options.weights = weights;
    const auto report = convert(options, {});
    if (!report.ok()) {
      EXPECT_EQ(report.status().code(), StatusCode::kUnsupported) << report.status().to_string();
      return std::nullopt;
    }
    const auto ids = read_ids(options.model + "/golden/ids.txt");
    LoadOptions load;
    load.need_tokenizer = false;
    load.declared_length = static_cast<int64_t>(ids.size());
    const auto loaded = load_model(options.output, load, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
    if (!loaded.ok()) return std::nullopt;
    Runner& runner = *loaded->runner;
    const size_t vocab = static_cast<size_t>(runner.info().vocab_size);
    std::vector<float> logits(ids.size() * vocab);
    EXPECT_TRUE(runner.prefill(ids, LogitsOf::kAll, logits).ok());
    const std::vector<float> expected = read_floats(options.model + "/golden/logits.npy");
    return std::pair(mean_kl(expected, logits, vocab), largest_difference(expected, logits));
  }

  TempFolder folder_{true};
};

TEST_P(ZooGguf, GivesTheRecordedLogits) {
  const auto exact = measure("f32");
  if (!exact) {
    for (const char* column : {"gguf written", "gguf written q8_0"})
      record(GetParam(), column, "not in GGUF");
    EXPECT_TRUE(GetParam() == "gptneo" || GetParam() == "latent-kv");
    return;
  }
  EXPECT_LT(exact->second, kGoldenTolerance);
  record(GetParam(), "gguf written", exact->second);
  const auto eight = measure("q8_0");
  ASSERT_TRUE(eight.has_value());
  EXPECT_LT(eight->first, 1e-2);
  EXPECT_GT(eight->first, 0);
  record(GetParam(), "gguf written q8_0", eight->first);
}

INSTANTIATE_TEST_SUITE_P(Models, ZooGguf, testing::ValuesIn(zoo_names()), name_of_parameter);

}  // namespace
}  // namespace pome
