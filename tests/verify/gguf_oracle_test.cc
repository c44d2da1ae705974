// The model collection as GGUF files that llama.cpp's converter wrote: logits against the recorded
// ones, perplexity and ids against what llama.cpp itself computes from the same file. The files are
// made by scripts/gguf-zoo, in build/gguf-zoo or the folder that POME_GGUF_ZOO names.
#include <cstdlib>
#include <map>

#include "base/temp_folder.h"
#include "engine/engine.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "support/zoo.h"
#include "verify/model.h"
#include "verify/score.h"

namespace pome {
namespace {

using namespace test;

std::string gguf_folder() {
  const char* named = std::getenv("POME_GGUF_ZOO");
  return std::string(named ? named : POME_SOURCE_DIR "/build/gguf-zoo") + "/";
}
std::vector<std::string> models() {
  std::vector<std::string> names = zoo_names();
  names.push_back("tales");
  return names;
}
std::string folder_of(const std::string& name) {
  return name == "tales" ? kModels + name : kZoo + name;
}

// What the converter does not write down (it means nothing to llama.cpp): the configuration that
// the file stands for. Models without an entry are in their files what they were.
const std::map<std::string, Json>& lost() {
  static const std::map<std::string, Json> kLost = {
      {"mistral", {{"sliding_window", nullptr}}},
      {"gemma2", {{"query_pre_attn_scalar", 16}}},  // head_dim, as in the published sizes
      {"gemma3",
       {{"sliding_window_pattern", 6}, {"_sliding_window_pattern", 6}, {"layer_types", nullptr}}},
  };
  return kLost;
}
// Where llama.cpp computes something else from the file, and why.
const std::map<std::string, std::string>& differs() {
  static const std::map<std::string, std::string> kDiffers = {
      {"deepseek-mla", "takes a router without a name for softmax"},
      {"deepseek-v2-lite", "knows the lite variant by 27 layers"},
      {"gpt-oss", "rounds the dimensions of YaRN"},
      {"gpt-oss-mxfp4", "rounds the dimensions of YaRN"},
      {"phi2", "takes the width for 4 * hidden"},
  };
  return kDiffers;
}

class GgufZoo : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(file("f32")))
      GTEST_SKIP() << "no " << file("f32") << ": scripts/gguf-zoo makes it where llama.cpp's "
                   << "converter has the architecture";
  }
  static std::string file(const std::string& type) {
    return gguf_folder() + GetParam() + "-" + type + ".gguf";
  }
  static std::string golden(const std::string& name) {
    return folder_of(GetParam()) + "/golden/" + name;
  }
  static Graph graph_of(const std::string& path, const Json& changes, size_t context) {
    auto checkpoint = open_checkpoint(path);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    if (!checkpoint.ok()) return {};
    if (!changes.is_null()) checkpoint->config.update(changes);
    auto graph = build_graph(*checkpoint, {static_cast<int64_t>(context)});
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    return graph.ok() ? std::move(*graph) : Graph{};
  }
  static std::vector<float> logits(Result<std::unique_ptr<Runner>> runner,
                                   std::span<const int32_t> ids) {
    EXPECT_TRUE(runner.ok()) << runner.status().to_string();
    if (!runner.ok()) return {};
    std::vector<float> out(ids.size() * static_cast<size_t>((*runner)->info().vocab_size));
    EXPECT_TRUE((*runner)->prefill(ids, LogitsOf::kAll, out).ok());
    return out;
  }
  static std::vector<float> by_reference(const Graph& graph, std::span<const int32_t> ids) {
    return logits(reference_runner({graph}, {2, 0}), ids);
  }
  static std::vector<float> by_engine(const Graph& graph, std::span<const int32_t> ids) {
    const auto plan = compile(graph, {});
    EXPECT_TRUE(plan.ok()) << plan.status().to_string();
    return plan.ok() ? logits((*plan)->new_session(), ids) : std::vector<float>{};
  }
};

TEST_P(GgufZoo, LogitsAreThoseOfTheModel) {
  const auto found = lost().find(GetParam());
  const Json changes = found == lost().end() ? Json() : found->second;
  // The second one is longer than every window.
  for (const char* list : {"ids.txt", "long_ids.txt"}) {
    SCOPED_TRACE(list);
    const auto ids = read_ids(golden(list));
    std::vector<float> expected =
        by_reference(graph_of(folder_of(GetParam()), changes, ids.size()), ids);
    const bool recorded = changes.is_null() && std::string(list) == "ids.txt";
    if (recorded) expected = read_floats(golden("logits.npy"));
    const size_t vocab = expected.size() / ids.size();
    double worst = 0;
    for (const char* type : {"f32", "f16"}) {  // the weights are bf16 numbers that f16 can hold
      const Graph graph = graph_of(file(type), {}, ids.size());
      worst = std::max({worst, largest_difference(by_reference(graph, ids), expected),
                        largest_difference(by_engine(graph, ids), expected)});
    }
    EXPECT_LE(worst, kGoldenTolerance);
    // Eight bits with a scale per 32 weights: an error of about 0.3 % of each weight.
    const Graph graph = graph_of(file("q8_0"), {}, ids.size());
    const double by_reference_kl = mean_kl(expected, by_reference(graph, ids), vocab),
                 by_engine_kl = mean_kl(expected, by_engine(graph, ids), vocab);
    EXPECT_LE(std::max(by_reference_kl, by_engine_kl), 1e-3);
    EXPECT_GT(by_reference_kl, 1e-7);
    if (std::string(list) != "ids.txt") continue;
    record(GetParam(), recorded ? "gguf" : "gguf as stored", worst);
    record(GetParam(), "gguf q8_0", by_reference_kl);
  }
}

TEST_P(GgufZoo, PerplexityIsThatOfLlamaCpp) {
  const std::string text = slurp(POME_SOURCE_DIR "/data/held-out.txt");
  constexpr int64_t kWindow = 64, kWindows = 16;
  double worst = 0;
  for (const char* type : {"f32", "f16", "q8_0"}) {
    SCOPED_TRACE(type);
    std::string theirs = slurp(gguf_folder() + GetParam() + "-" + type + ".perplexity");
    if (const auto known = differs().find(GetParam()); known != differs().end()) {
      record(GetParam(), "llama.cpp", known->second);
      GTEST_SKIP() << "llama.cpp " << known->second << ": " << theirs;
    }
    LoadOptions options;
    options.threads = 2;
    options.context = kWindow;
    options.declared_length = 256;  // the least context that llama.cpp makes
    const auto model = load_model(file(type), options, {});
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    std::vector<int32_t> ids = model->tokenizer->encode(text, {true, false});
    ASSERT_GT(ids.size(), static_cast<size_t>(kWindow * kWindows));
    ids.resize(static_cast<size_t>(kWindow * kWindows));
    ScoreOptions scoring;
    scoring.window = kWindow;
    scoring.rule = ScoreRule::kSecondHalf;
    const TokenizerSource& source = model->tokenizer->source();
    if (source.add_bos()) scoring.bos = source.bos;
    const auto ours = score(*model->runner, ids, scoring, {});
    ASSERT_TRUE(ours.ok()) << ours.status().to_string();
    const double ratio = ours->perplexity / std::atof(theirs.c_str());
    // llama.cpp rounds activations to the type of the weights: 8 bits for q8_0.
    EXPECT_NEAR(ratio, 1, std::string(type) == "q8_0" ? 5e-3 : 1e-3) << theirs;
    if (std::string(type) != "q8_0") worst = std::max(worst, std::fabs(ratio - 1));
  }
  record(GetParam(), "llama.cpp", worst);
}

TEST_P(GgufZoo, IdsAreThoseOfLlamaCppAndTheTemplateIsThere) {
  const auto theirs = read_ids(gguf_folder() + GetParam() + ".ids");
  ASSERT_FALSE(theirs.empty());
  for (const char* type : {"f32", "q8_0"}) {
    const auto tokenizer = load_tokenizer(file(type));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
    EXPECT_EQ((*tokenizer)->encode(slurp(POME_SOURCE_DIR "/tests/support/mixed.txt")), theirs);
  }
  LoadOptions options;
  const auto original = load_model(folder_of(GetParam()), options, {}),
             converted = load_model(file("f32"), options, {});
  ASSERT_TRUE(original.ok() && converted.ok());
  EXPECT_EQ(!original->chat_template, !converted->chat_template);
  record(GetParam(), "gguf ids", std::to_string(theirs.size()));
}

INSTANTIATE_TEST_SUITE_P(Models, GgufZoo, testing::ValuesIn(models()), name_of_parameter);

}  // namespace
}  // namespace pome
