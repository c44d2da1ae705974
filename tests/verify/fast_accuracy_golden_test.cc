// What the integer arithmetic of fast plans costs: perplexity of the embedded model with weights of
// every encoding, fast and exact plans of the same weights. docs/engine.md has the table; a whole
// one is printed by
//   POME_ACCURACY_TOKENS=4096 [POME_ACCURACY_MODEL=folder] verify_golden_test
//   --gtest_filter='*Accuracy*'
#include <cstdlib>

#include "base/temp_folder.h"
#include "engine/engine.h"
#include "quantize/quantize.h"
#include "support/zoo.h"
#include "verify/model.h"
#include "verify/score.h"

namespace pome {
namespace {

using namespace test;

struct Model {
  Graph graph;
  std::vector<int32_t> ids;
};

// Loaded once for all encodings.
const Model* model() {
  static const std::optional<Model> loaded = []() -> std::optional<Model> {
    const char* const folder = std::getenv("POME_ACCURACY_MODEL");
    const char* const tokens = std::getenv("POME_ACCURACY_TOKENS");
    auto read = load_model(folder ? folder : kModels + "tales", {}, {});
    EXPECT_TRUE(read.ok()) << read.status().to_string();
    if (!read.ok()) return std::nullopt;
    std::vector<int32_t> ids =
        read->tokenizer->encode(slurp(POME_SOURCE_DIR "/data/held-out.txt"), {});
    ids.resize(std::min<size_t>(ids.size(), tokens ? std::strtoul(tokens, nullptr, 10) : 512));
    return Model{*std::move(read->graph), std::move(ids)};
  }();
  return loaded ? &*loaded : nullptr;
}

class FastAccuracy : public testing::TestWithParam<const char*> {};

TEST_P(FastAccuracy, PerplexityIsThatOfExactPlansWithinATenthOfAPercent) {
  const auto recipe = parse_recipe(GetParam());
  if (!recipe.ok()) GTEST_SKIP() << "nothing here encodes weights as " << GetParam();
  ASSERT_TRUE(model());
  const auto quantized = quantize(model()->graph, *recipe);
  ASSERT_TRUE(quantized.ok()) << quantized.status().to_string();
  const auto perplexity = [&](bool exact) {
    PlanOptions options;
    options.threads = 2;
    options.exact = exact;
    options.capacity = 256;
    // The cache is another matter.
    options.kv = KvKind::kF32;
    const auto plan = compile(quantized->graph, options);
    EXPECT_TRUE(plan.ok()) << plan.status().to_string();
    if (!plan.ok()) return HUGE_VAL;
    auto runner = (*plan)->new_session();
    EXPECT_TRUE(runner.ok());
    ScoreOptions windows;
    windows.window = options.capacity;
    const auto result = score(**runner, model()->ids, windows, {});
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result.ok() ? result->perplexity : HUGE_VAL;
  };
  const double exact = perplexity(true), fast = perplexity(false);
  const double percent = 100 * (fast / exact - 1);
  std::printf("| %s | %.4f | %.4f | %+.4f %% |\n", GetParam(), exact, fast, percent);
  EXPECT_LE(std::fabs(percent), 0.1);
}

INSTANTIATE_TEST_SUITE_P(Encodings, FastAccuracy,
                         testing::Values("int8", "int4", "lut8", "lut6", "lut4", "lut3", "lut2",
                                         "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k",
                                         "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace pome
