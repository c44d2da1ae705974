// Every model of the collection as an ONNX model: executed from disk against the logits that
// transformers gives, and verified in integers.
#include "base/temp_folder.h"
#include "interp/onnx_eval.h"
#include "models/models.h"
#include "pipeline/convert.h"
#include "support/zoo.h"
#include "verify/model.h"
#include "verify/verify.h"

namespace pome {
namespace {

using namespace test;

class ZooOnnx : public testing::TestWithParam<std::string> {
 protected:
  std::string model() const { return kZoo + GetParam(); }
  std::string artefact(const std::string& profile, const std::string& weights) {
    ConvertOptions options;
    options.model = model();
    options.output = folder_ / (profile + weights);
    options.target = "onnx";
    options.profile = profile;
    options.weights = weights;
    options.context = 128;
    const auto report = convert(options, {});
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return options.output;
  }

  TempFolder folder_{true};
};

TEST_P(ZooOnnx, GivesTheRecordedLogits) {
  for (const char* profile : {"ort", "plain"}) {
    LoadOptions load;
    load.need_tokenizer = false;
    const auto loaded = load_model(artefact(profile, "f32"), load, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    Runner& runner = *loaded->runner;
    const auto ids = read_ids(model() + "/golden/ids.txt");
    const size_t vocab = static_cast<size_t>(runner.info().vocab_size), prompt = ids.size() - 5;
    std::vector<float> logits(ids.size() * vocab);
    ASSERT_TRUE(runner
                    .prefill(std::span(ids).first(prompt), LogitsOf::kAll,
                             std::span(logits).first(prompt * vocab))
                    .ok());
    for (size_t i = prompt; i < ids.size(); ++i)
      ASSERT_TRUE(runner.decode(ids[i], std::span(logits).subspan(i * vocab, vocab)).ok());
    const double difference =
        largest_difference(read_floats(model() + "/golden/logits.npy"), logits);
    EXPECT_LT(difference, kGoldenTolerance) << profile;
    record(GetParam(), std::string("onnx ") + profile, difference);
    // Of a prompt that begins alike, the rest alone is computed.
    const auto kept = reuse_prefix(runner, std::span(ids).first(prompt + 1));
    ASSERT_TRUE(kept.ok()) << kept.status().to_string();
    EXPECT_EQ(*kept, static_cast<int64_t>(prompt));
    std::vector<float> again(vocab);
    ASSERT_TRUE(runner.decode(ids[prompt], again).ok());
    const auto before = std::span(logits).subspan(prompt * vocab, vocab);
    EXPECT_TRUE(std::equal(again.begin(), again.end(), before.begin())) << profile;
  }
}

TEST_P(ZooOnnx, VerifiesInIntegers) {
  for (const auto& [profile, weights] : {std::pair("ort", "int4"), std::pair("plain", "int8")}) {
    VerifyOptions options;
    options.artefact = artefact(profile, weights);
    options.original = model();
    options.text = slurp(POME_SOURCE_DIR "/data/held-out.txt").substr(0, 300);
    options.max_tokens = 40;
    const auto report = verify(options, {});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    for (const std::string& problem : report->problems) ADD_FAILURE() << profile << ": " << problem;
    EXPECT_TRUE(report->has_semantics && report->has_comparison);
  }
}

// Integers that a GGUF file holds arrive as they are, and so do their scales and minima.
TEST(OnnxFromGguf, KeepsWhatIsStored) {
  const TempFolder folder(true);
  for (const auto& [type, weights] : {std::pair("q4_0", "int4"), std::pair("q4_1", "int4"),
                                      std::pair("q4_k_s", "int4"), std::pair("q8_0", "int8")}) {
    SCOPED_TRACE(type);
    const std::string name = type;
    ConvertOptions options;
    options.model = kModels + "tales";
    options.output = folder / (name + ".gguf");
    options.target = "gguf";
    options.weights = name;
    options.embedding = name == "q4_k_s" ? "q4_k" : name;
    ASSERT_TRUE(convert(options, {}).ok());
    options.model = options.output;
    options.output = folder / name;
    options.target = "onnx";
    options.weights = weights;
    options.embedding.reset();
    options.context = 128;
    const auto report = convert(options, {});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    const auto checkpoint = open_checkpoint(options.model);
    ASSERT_TRUE(checkpoint.ok());
    const auto graph = build_graph(*checkpoint, {});
    const auto program = OnnxProgram::open(options.output + "/model.onnx", {1});
    ASSERT_TRUE(graph.ok() && program.ok());
    size_t kept = 0, matrices = 0;
    for (size_t i = 0; i < graph->constants.size(); ++i) {
      const Constant& constant = graph->constants[i];
      if (constant.data->shape().size() < 2) continue;
      ++matrices;
      if (!report->tensors[i].kept_integers) continue;
      ++kept;
      const auto weight = (*program)->weight(constant.name);
      ASSERT_TRUE(weight.ok() && weight->defined()) << constant.name;
      std::vector<float> stored(static_cast<size_t>(weight->count()));
      ASSERT_TRUE(constant.data->read_f32(0, constant.data->rows(), stored.data()).ok());
      ASSERT_TRUE(std::equal(stored.begin(), stored.end(), weight->f32().begin())) << constant.name;
    }
    if (name != "q4_k_s") {  // whose mixture has some q5_k
      EXPECT_EQ(kept, matrices);
    }
    EXPECT_GT(kept, matrices * 3 / 4);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ZooOnnx, testing::ValuesIn(zoo_names()), name_of_parameter);

}  // namespace
}  // namespace pome
