// Artefacts of one model side by side, whatever their targets.
#include <gtest/gtest.h>

#include <map>

#include "verify/tampered.h"
#include "verify/verify.h"

namespace pome {
namespace {

using namespace test;

struct Kind {
  const char *name, *target, *weights;
};
constexpr Kind kKinds[] = {{"coreml", "coreml", "f16"},
                           {"onnx", "onnx", "f16"},
                           {"gguf", "gguf", "f16"},
                           {"alone.gguf", "gguf", "q8_0"}};

bool is_f16_package(const std::string& name) { return name == "coreml" || name == "onnx"; }

class VerifyPairTest : public ::testing::Test {
 protected:
  static std::string make(const Kind& kind, const std::string& model, const std::string& folder) {
    ConvertOptions options;
    options.model = model;
    options.output = folder + "/" + kind.name;
    options.target = kind.target;
    options.weights = kind.weights;
    options.context = 128;
    WorkContext work;
    work.threads = 2;
    const auto report = convert(options, work);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return options.output;
  }
  // Of tales, once for the whole program.
  static const std::map<std::string, std::string>& artefacts() {
    static const TempFolder folder(true);
    static std::map<std::string, std::string> made;
    if (made.empty())
      for (const Kind& kind : kKinds) made[kind.name] = make(kind, kTales, folder.path());
    return made;
  }
  static Result<VerifyReport> run(const std::string& path, const std::string& against) {
    VerifyOptions options;
    options.artefact = path;
    options.original = against;
    options.text = slurp(POME_SOURCE_DIR "/data/held-out.txt").substr(0, 300);
    options.max_tokens = 60;
    options.threads = 2;
    return verify(options, {});
  }

  TempFolder folder_{true};
};

TEST_F(VerifyPairTest, EveryTargetAgainstEveryOther) {
  std::string source;
  for (const auto& [a, path] : artefacts())
    for (const auto& [b, other] : artefacts()) {
      SCOPED_TRACE(a + " against " + b);
      const auto report = run(path, other);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      for (const std::string& problem : report->problems) ADD_FAILURE() << problem;
      EXPECT_TRUE(report->ok && report->has_comparison && !report->has_semantics);
      EXPECT_EQ(report->against_original.artefact.tokens, 59);
      EXPECT_LT(report->against_original.mean_kld, 1e-3);
      if (source.empty()) source = report->source_hash;
      EXPECT_EQ(report->source_hash, source);
      EXPECT_EQ(report->against.size(), 64u);
      // Core ML and ONNX hold the same graph here: the same ops, shapes and f16 numbers.
      const bool same = a == b || (is_f16_package(a) && is_f16_package(b));
      EXPECT_EQ(report->against == report->graph_hash, same);
    }
}

TEST_F(VerifyPairTest, AGgufFileIsAModelAsWell) {
  // Its integers are the model here, not what they were rounded from.
  const std::string& parent = artefacts().at("alone.gguf");
  const std::string child = make({"child", "onnx", "int8"}, parent, folder_.path());
  const auto down = run(child, parent);
  ASSERT_TRUE(down.ok()) << down.status().to_string();
  for (const std::string& problem : down->problems) ADD_FAILURE() << problem;
  EXPECT_TRUE(down->has_semantics && down->has_comparison);
  EXPECT_LT(down->against_original.mean_kld, 1e-9);
  const auto up = run(parent, child);
  ASSERT_TRUE(up.ok()) << up.status().to_string();
  for (const std::string& problem : up->problems) ADD_FAILURE() << problem;
  EXPECT_FALSE(run(child, artefacts().at("onnx"))->ok);
}

TEST_F(VerifyPairTest, AnotherModelIsFound) {
  // The same model but for one weight.
  const std::string model = folder_ / "m";
  copy_folder(kTales, model);
  change_byte(model + "/model.safetensors", slurp(model + "/model.safetensors").size() - 2,
              [](char c) { return static_cast<char>(c ^ 1); });
  const std::string other = make(kKinds[1], model, folder_.path());
  for (const char* name : {"coreml", "gguf"}) {
    const auto report = run(artefacts().at(name), other);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_FALSE(report->ok);
    ASSERT_EQ(report->problems.size(), 1u);
    EXPECT_NE(report->problems[0].find("different models"), std::string::npos);
  }
}

TEST_F(VerifyPairTest, DamageIsFoundOnTheWay) {
  const std::string path = folder_ / "damaged";
  copy_folder(artefacts().at("gguf"), path);
  change_byte(path + "/model.gguf", slurp(path + "/model.gguf").size() - 100,
              [](char c) { return static_cast<char>(c ^ 1); });
  const auto report = run(path, artefacts().at("onnx"));
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  EXPECT_FALSE(report->integrity.empty());
}

}  // namespace
}  // namespace pome
