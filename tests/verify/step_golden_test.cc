// Decode steps with explicit caches, of the models that the form was made for: verified, run with
// caches held as the sidecars say, and refused where they are spoiled.
#include <fstream>

#include "base/json.h"
#include "support/zoo.h"
#include "verify/model.h"
#include "verify/tampered.h"
#include "verify/verify.h"

namespace pome {
namespace {

using namespace test;

struct Form {
  std::string name, model, target, cache, weights;
};

class Steps : public testing::TestWithParam<Form> {
 protected:
  ConvertOptions options(const std::string& name) {
    const Form& form = GetParam();
    ConvertOptions out;
    out.model = kModels + form.model;
    out.output = folder_ / name;
    out.target = form.target;
    out.kv = "explicit";
    out.cache = form.cache;
    out.weights = form.weights;
    out.context = 256;
    return out;
  }
  static VerifyOptions against(const ConvertOptions& made, int64_t tokens) {
    VerifyOptions out;
    out.artefact = made.output;
    out.original = made.model;
    out.text = slurp(POME_SOURCE_DIR "/data/held-out.txt").substr(0, 2000);
    out.max_tokens = tokens;
    out.threads = 2;
    return out;
  }
  VerifyReport verified(const ConvertOptions& made, int64_t tokens) {
    const auto report = verify(against(made, tokens), {});
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    if (!report.ok()) return {};
    for (const std::string& problem : report->problems) ADD_FAILURE() << problem;
    EXPECT_TRUE(report->step.has_value());
    return report->step ? *report : VerifyReport();
  }

  TempFolder folder_{true};
};

TEST_P(Steps, SixtyFourStepsAreTheEngines) {
  const ConvertOptions made = options("plain");
  ASSERT_TRUE(convert(made, {}).ok());
  const VerifyReport report = verified(made, 40);
  ASSERT_TRUE(report.step.has_value());
  EXPECT_EQ(report.step->steps, 64);
  EXPECT_EQ(report.step->same, 64);
  EXPECT_EQ(report.step->ties, 0);
  EXPECT_GT(report.step->first_ms, 0);
  EXPECT_FALSE(report.step->cost.has_value());
  const auto vocab = static_cast<uint64_t>(GetParam().model == "tales" ? 4096 : 1024);
  EXPECT_EQ(report.step->logits_bytes, vocab * (GetParam().target == "coreml" ? 2 : 4));

  // Without an original the steps are run all the same.
  VerifyOptions alone;
  alone.artefact = made.output;
  const auto steps = verify(alone, {});
  ASSERT_TRUE(steps.ok()) << steps.status().to_string();
  EXPECT_TRUE(steps->ok);
  ASSERT_TRUE(steps->step.has_value());
  EXPECT_EQ(steps->step->steps, 64);
  EXPECT_FALSE(steps->step->same.has_value());
}

TEST_P(Steps, CachesAsTheSidecarsSay) {
  double kl[2] = {};
  for (const bool nf4 : {false, true}) {
    ConvertOptions made = options(nf4 ? "nf4" : "u8");
    made.kvq = nf4 ? "nf4" : "u8";
    const auto report = convert(made, {});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    const VerifyReport found = verified(made, 100);
    ASSERT_TRUE(found.step && found.step->cost);
    EXPECT_EQ(found.step->scheme, made.kvq);
    EXPECT_EQ(found.step->same, 64);
    kl[nf4] = found.step->cost->mean_kld;
  }
  EXPECT_GT(kl[0], 0);
  EXPECT_LT(kl[0], 2e-3);
  EXPECT_GT(kl[1], 5 * kl[0]);
  EXPECT_LT(kl[1], 0.5);

  ConvertOptions paged = options("paged");
  paged.page_len = 16;
  paged.max_pages = 5;
  paged.sink_tokens = 4;
  const auto report = convert(paged, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->packaging.kv_tokens, 84);
  const VerifyReport found = verified(paged, 160);
  ASSERT_TRUE(found.step && found.step->cost);
  EXPECT_EQ(found.step->kept, 84);
  EXPECT_EQ(found.step->sinks, 4);
  EXPECT_GT(found.step->cost->mean_kld, 1e-9);
  EXPECT_EQ(found.step->cost->artefact.tokens, 159);
  EXPECT_EQ(found.step->steps, 64);

  // eval and run hold them so too.
  LoadOptions load;
  load.threads = 2;
  const auto loaded = load_model(paged.output, load, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  EXPECT_EQ(loaded->runner->info().capacity, 256);
  const auto ids = loaded->tokenizer->encode(against(paged, 1).text);
  ASSERT_GT(ids.size(), 120u);
  ASSERT_TRUE(loaded->runner->prefill(std::span(ids).first(120), LogitsOf::kNone, {}).ok());
  EXPECT_FALSE(loaded->runner->can_truncate(100));
}

TEST_P(Steps, SpoiledSidecarsAreRefused) {
  ConvertOptions made = options("spoiled");
  made.kvq = "u8";
  ASSERT_TRUE(convert(made, {}).ok());
  const std::string file = made.output + "/model.kvq.json";
  LoadOptions load;
  load.need_tokenizer = false;
  for (const auto& [text, code] :
       {std::pair("{\"scheme\": \"u8\"", StatusCode::kBadInput),
        std::pair("{\"scheme\": \"u3\"}", StatusCode::kUnsupported),
        std::pair("{\"scheme\": \"u8\", \"group\": 48}", StatusCode::kUnsupported),
        std::pair("{\"scheme\": \"nf4\", \"codebook\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}",
                  StatusCode::kUnsupported)}) {
    spit(file, text);
    const auto loaded = load_model(made.output, load, {});
    ASSERT_FALSE(loaded.ok()) << text;
    EXPECT_EQ(loaded.status().code(), code) << text;
    EXPECT_NE(loaded.status().to_string().find("model.kvq.json"), std::string::npos)
        << loaded.status().to_string();
  }
}

std::string name_of(const testing::TestParamInfo<Form>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    Forms, Steps,
    testing::Values(Form{"latent_coreml", "zoo/latent-kv", "coreml", "fixed", "f16"},
                    Form{"latent_coreml_dynamic", "zoo/latent-kv", "coreml", "dynamic", "f16"},
                    Form{"latent_onnx", "zoo/latent-kv", "onnx", "dynamic", "int8"},
                    Form{"tales_coreml", "tales", "coreml", "fixed", "int4"},
                    Form{"tales_onnx", "tales", "onnx", "dynamic", "int4"}),
    name_of);

// Every family that the form fits, against the engine.
class ZooSteps : public testing::TestWithParam<std::string> {};

TEST_P(ZooSteps, ComputesWhatTheEngineDoes) {
  TempFolder folder(true);
  for (const char* target : {"coreml", "onnx"}) {
    ConvertOptions made;
    made.model = kZoo + GetParam();
    made.output = folder / target;
    made.target = target;
    made.kv = "explicit";
    made.weights = "f16";
    made.context = 64;
    ASSERT_TRUE(convert(made, {}).ok());
    LoadOptions load;
    load.need_tokenizer = false;
    const auto loaded = load_model(made.output, load, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    const auto ids = read_ids(made.model + "/golden/ids.txt");
    const size_t vocab = static_cast<size_t>(loaded->runner->info().vocab_size);
    const size_t count = std::min<size_t>(ids.size(), 40);
    std::vector<float> logits(count * vocab);
    ASSERT_TRUE(loaded->runner->prefill(std::span(ids).first(count), LogitsOf::kAll, logits).ok());
    const auto golden = read_floats(made.model + "/golden/logits.npy");
    EXPECT_LT(mean_kl(std::span(golden).first(logits.size()), logits, vocab), 1e-5) << target;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ZooSteps, testing::ValuesIn(zoo_names()), name_of_parameter);

// A wrong step is an answer that names the first token.
TEST(StepsSpoiled, ExchangedCachesAreFound) {
  TempFolder folder(true);
  ConvertOptions made;
  made.model = kModels + "zoo/latent-kv";
  made.output = folder / "a";
  made.kv = "explicit";
  made.weights = "f16";
  made.context = 128;
  ASSERT_TRUE(convert(made, {}).ok());
  swap_inputs(made.output, {"main"}, "layers_1_attention", "key", "value");
  VerifyOptions options;
  options.artefact = made.output;
  options.original = made.model;
  options.text = slurp(POME_SOURCE_DIR "/data/held-out.txt").substr(0, 600);
  options.max_tokens = 60;
  const auto report = verify(options, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  ASSERT_TRUE(report->first_difference.has_value());
  EXPECT_EQ(report->first_difference->value, "layers_1_attention");
}

}  // namespace
}  // namespace pome
