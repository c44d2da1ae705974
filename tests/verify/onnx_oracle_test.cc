// Our ONNX models in the runtimes that people have: onnx's checker, ONNX Runtime, and
// onnxruntime-genai. Some of the collection by default; all of it with POME_ONNX_ALL=1.
#include <cstdlib>
#include <map>

#include "base/temp_folder.h"
#include "pipeline/convert.h"
#include "support/zoo.h"
#include "tokenizer/python_oracle.h"
#include "verify/model.h"

namespace pome {
namespace {

using namespace test;

constexpr size_t kSteps = 64;

struct Case {
  std::string name, model, target = "onnx", profile, weights, kv;
  std::optional<std::string> embedding;
  std::string artefact;
  std::vector<int32_t> ids;
  size_t prompt = 0;
  std::vector<float> ours;
};

bool everything() { return std::getenv("POME_ONNX_ALL") != nullptr; }

std::vector<std::string> chosen_models() {
  std::vector<std::string> out;
  for (const std::string& name : zoo_names())
    if (everything() || name == "gpt-oss" || name == "qwen3" || name == "gpt2")
      out.push_back(kZoo + name);
  if (everything()) out.push_back(kModels + "tales");
  return out;
}

class OnnxOracle : public testing::Test {
 protected:
  Status convert_case(Case* c) {
    ConvertOptions options;
    options.model = c->model;
    options.output = c->artefact = folder_ / c->name;
    options.target = c->target;
    options.profile = c->profile;
    options.weights = c->weights;
    options.embedding = c->embedding;
    options.kv = c->kv;
    options.context = 128;
    WorkContext work;
    work.threads = 2;
    return convert(options, work).status();
  }
  // The runtime's logits go to <artefact>.npy.
  static Json ask_runtime(const std::vector<Case>& cases) {
    Json jobs = Json::array();
    for (const Case& c : cases)
      jobs.push_back({{"model", c.artefact + "/model.onnx"},
                      {"ids", c.ids},
                      {"prompt", c.prompt},
                      {"out", c.artefact + ".npy"}});
    return run_python_file(POME_SOURCE_DIR "/tests/verify/onnx_runtime.py", {{"jobs", jobs}});
  }
  // Logits of our interpreter, over the same calls.
  void run_ours(Case* c) {
    LoadOptions load;
    load.threads = 2;
    load.need_tokenizer = false;
    auto model = load_model(c->artefact, load, {});
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    Runner& runner = *model->runner;
    const size_t vocab = static_cast<size_t>(runner.info().vocab_size);
    c->ours.resize(c->ids.size() * vocab);
    ASSERT_TRUE(runner
                    .prefill(std::span(c->ids).first(c->prompt), LogitsOf::kAll,
                             std::span(c->ours).first(c->prompt * vocab))
                    .ok());
    for (size_t i = c->prompt; i < c->ids.size(); ++i)
      ASSERT_TRUE(runner.decode(c->ids[i], std::span(c->ours).subspan(i * vocab, vocab)).ok());
  }

  TempFolder folder_{true};
};

TEST_F(OnnxOracle, RuntimeComputesWhatTheInterpreterSays) {
  POME_NEED_PYTHON("onnxruntime");
  POME_NEED_PYTHON("onnx");
  std::vector<Case> cases;
  for (const std::string& model : chosen_models()) {
    for (const char* profile : {"ort", "plain"}) {
      for (const char* weights : {"f32", "f16", "int8", "int4"}) {
        if (!everything() && std::string(weights) == "f16") continue;
        Case c;
        const std::string stem = model.substr(model.rfind('/') + 1);
        c.name = stem + "-" + profile + "-" + weights;
        c.model = model;
        c.profile = profile;
        c.weights = weights;
        c.ids = read_ids(model + "/golden/ids.txt");
        c.prompt = c.ids.size();
        const std::vector<int32_t> text = c.ids;
        for (size_t i = 0; i < kSteps; ++i) c.ids.push_back(text[i * 7 % text.size()]);
        const Status converted = convert_case(&c);
        ASSERT_TRUE(converted.ok()) << c.name << ": " << converted.to_string();
        run_ours(&c);
        cases.push_back(std::move(c));
      }
    }
  }
  const Json answer = ask_runtime(cases);
  ASSERT_TRUE(answer.is_object());
  std::map<std::pair<std::string, std::string>, double> worst;  // by model and profile
  std::map<std::string, bool> checked;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    SCOPED_TRACE(c.name);
    const std::string complaint = answer["checked"][i];
    EXPECT_EQ(complaint, "");
    const std::string stem = c.model.substr(c.model.rfind('/') + 1);
    checked.emplace(stem, true).first->second &= complaint.empty();
    const std::vector<float> theirs = read_floats(c.artefact + ".npy");
    const double difference = largest_difference(c.ours, theirs);
    EXPECT_LT(difference, 1e-3);
    double& largest = worst[{stem, c.profile}];
    largest = std::max(largest, difference);
    const std::vector<float> golden = read_floats(c.model + "/golden/logits.npy");
    const size_t vocab = golden.size() / c.prompt;
    const double kl = mean_kl(golden, std::span(theirs).first(golden.size()), vocab);
    if (c.weights == "f32")
      EXPECT_LT(largest_difference(golden, std::span(theirs).first(golden.size())), 1e-3);
    else
      EXPECT_LT(kl, c.weights == "f16" ? 1e-5 : c.weights == "int8" ? 5e-2 : 1.0);
    if (everything())
      std::printf("%-28s runtime against interpreter %.1e, KL to the original %.1e\n",
                  c.name.c_str(), difference, kl);
  }
  for (const auto& [which, difference] : worst)
    record(which.first, "onnxruntime " + which.second, difference);
  for (const auto& [model, good] : checked)
    if (good) record(model, "onnx checker", "valid");
}

TEST_F(OnnxOracle, RuntimeComputesBlocksWithMinima) {
  POME_NEED_PYTHON("onnxruntime");
  POME_NEED_PYTHON("onnx");
  std::vector<Case> cases;
  for (const char* type : {"q4_1", "q4_k"}) {
    Case c;
    c.name = std::string(type) + ".gguf";
    c.model = kModels + "tales";
    c.target = "gguf";
    c.weights = type;
    c.embedding = type;
    ASSERT_TRUE(convert_case(&c).ok());
    c.ids = read_ids(c.model + "/golden/ids.txt");
    c.prompt = c.ids.size() - 8;
    run_ours(&c);  // the engine, on the GGUF file
    c.model = c.artefact;
    c.name = type;
    c.target = "onnx";
    c.weights = "int4";
    c.embedding.reset();
    ASSERT_TRUE(convert_case(&c).ok());
    cases.push_back(std::move(c));
  }
  const Json answer = ask_runtime(cases);
  ASSERT_TRUE(answer.is_object());
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(answer["checked"][i].get<std::string>(), "");
    const std::vector<float> theirs = read_floats(cases[i].artefact + ".npy");
    // Some tensors of the mixture of q4_k are rounded once more.
    if (cases[i].name == "q4_1")
      EXPECT_LT(largest_difference(cases[i].ours, theirs), 1e-3);
    else
      EXPECT_LT(mean_kl(cases[i].ours, theirs, cases[i].ours.size() / cases[i].ids.size()), 0.02);
  }
}

// A decode step with explicit caches: 64 tokens, each chosen from the runtime's own logits, over
// the caches that it gives back; the engine chooses the same.
TEST_F(OnnxOracle, DecodeStepsChooseTheEnginesTokens) {
  POME_NEED_PYTHON("onnxruntime");
  POME_NEED_PYTHON("onnx");
  std::vector<Case> cases;
  Json jobs = Json::array();
  std::vector<std::string> models = {kZoo + "latent-kv", kModels + "tales"};
  if (everything()) models = chosen_models();
  for (const std::string& model : models) {
    for (const auto& [profile, weights] :
         {std::pair("ort", "f32"), std::pair("plain", "f32"), std::pair("ort", "int4")}) {
      Case c;
      c.name = model.substr(model.rfind('/') + 1) + "-step-" + profile + "-" + weights;
      c.model = model;
      c.profile = profile;
      c.weights = weights;
      c.kv = "explicit";
      // The path of the engine, over the weights of the file where these are rounded.
      const Status converted = convert_case(&c);
      ASSERT_TRUE(converted.ok()) << c.name << ": " << converted.to_string();
      c.ids = read_ids(model + "/golden/ids.txt");
      c.ids.resize(8);
      c.prompt = c.ids.size();
      LoadOptions load;
      load.threads = 2;
      load.need_tokenizer = false;
      const bool exact = c.weights == "f32";
      const auto guide = load_model(exact ? model : c.artefact, load, {});
      ASSERT_TRUE(guide.ok()) << guide.status().to_string();
      std::vector<float> logits(static_cast<size_t>(guide->runner->info().vocab_size));
      ASSERT_TRUE(guide->runner->prefill(c.ids, LogitsOf::kLast, logits).ok());
      for (size_t i = 0; i < kSteps; ++i) {
        c.ids.push_back(
            static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
        ASSERT_TRUE(guide->runner->decode(c.ids.back(), logits).ok());
      }
      run_ours(&c);
      jobs.push_back({{"model", c.artefact + "/model.onnx"},
                      {"ids", c.ids},
                      {"prompt", c.prompt},
                      {"out", c.artefact + ".npy"}});
      cases.push_back(std::move(c));
    }
  }
  const Json answer =
      run_python_file(POME_SOURCE_DIR "/tests/verify/onnx_runtime.py", {{"jobs", jobs}});
  ASSERT_TRUE(answer.is_object());
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    SCOPED_TRACE(c.name);
    EXPECT_EQ(answer["checked"][i].get<std::string>(), "");
    const std::vector<float> theirs = read_floats(c.artefact + ".npy");
    const double difference = largest_difference(c.ours, theirs);
    EXPECT_LT(difference, 1e-3);
    const size_t vocab = theirs.size() / c.ids.size();
    size_t same = 0;
    for (size_t at = c.prompt; at < c.ids.size(); ++at) {
      const auto row = std::span(theirs).subspan((at - 1) * vocab, vocab);
      same += std::max_element(row.begin(), row.end()) - row.begin() == c.ids[at];
    }
    EXPECT_EQ(same, kSteps);
    std::printf("%-28s %zu of %zu tokens, runtime against interpreter %.1e\n", c.name.c_str(), same,
                kSteps, difference);
  }
}

TEST_F(OnnxOracle, GenaiAnswersWithTheSameTokens) {
  POME_NEED_PYTHON("onnxruntime_genai");
  Case c;
  c.name = "tales";
  c.model = kModels + "tales";
  for (const char* weights : {"f32", "int4"}) {
    c.name = std::string("tales-") + weights;
    c.weights = weights;
    const Status converted = convert_case(&c);
    ASSERT_TRUE(converted.ok()) << converted.to_string();
    const std::string prompt = "Once upon a time, there was a little";
    LoadOptions load;
    load.threads = 2;
    auto model = load_model(c.artefact, load, {});
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    std::vector<int32_t> ids = model->tokenizer->encode(prompt);
    const size_t prompt_size = ids.size();
    std::vector<float> logits(static_cast<size_t>(model->runner->info().vocab_size));
    ASSERT_TRUE(model->runner->prefill(ids, LogitsOf::kLast, logits).ok());
    for (int i = 0; i < 48; ++i) {
      ids.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      ASSERT_TRUE(model->runner->decode(ids.back(), logits).ok());
    }
    const Json answer = run_python(
        R"(
import json, sys
import onnxruntime_genai as og
request = json.load(open(sys.argv[1]))
model = og.Model(request["folder"])
tokenizer = og.Tokenizer(model)
text = [int(i) for i in tokenizer.encode(request["prompt"])]
prompt = request["ids"]
params = og.GeneratorParams(model)
params.set_search_options(do_sample=False, max_length=len(prompt) + 48)
generator = og.Generator(model, params)
generator.append_tokens(prompt)
while not generator.is_done():
    generator.generate_next_token()
ids = [int(i) for i in generator.get_sequence(0)]
json.dump({"text": text, "ids": ids}, open(sys.argv[2], "w"))
)",
        {{"folder", c.artefact}, {"prompt", prompt}, {"ids", model->tokenizer->encode(prompt)}});
    ASSERT_TRUE(answer.is_object());
    const auto theirs = answer["ids"].get<std::vector<int32_t>>();
    // Its tokenizer leaves the leading special tokens of the post-processor to the caller.
    const auto text = answer["text"].get<std::vector<int32_t>>();
    ASSERT_LE(text.size(), prompt_size);
    EXPECT_TRUE(std::equal(text.rbegin(), text.rend(),
                           ids.rbegin() + static_cast<ptrdiff_t>(ids.size() - prompt_size)));
    ASSERT_GT(theirs.size(), prompt_size);
    EXPECT_EQ(theirs, std::vector<int32_t>(ids.begin(),
                                           ids.begin() + static_cast<ptrdiff_t>(theirs.size())));
  }
}

}  // namespace
}  // namespace pome
