#include "verify/verify.h"

#include <gtest/gtest.h>

#include <map>

#include "verify/tampered.h"

namespace pome {
namespace {

using namespace test;

// One artefact per scheme for the whole program; tests spoil copies.
const std::string& artefact(const std::string& scheme) {
  static const TempFolder folder(true);
  static std::map<std::string, std::string> made;
  std::string& path = made[scheme];
  if (path.empty()) {
    path = folder / scheme;
    const Status status = make_artefact(path, scheme);
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
  return path;
}

class VerifyTest : public ::testing::Test {
 protected:
  std::string copy_of(const std::string& scheme) {
    const std::string path = folder_ / "artefact";
    copy_folder(artefact(scheme), path);
    return path;
  }
  static Result<VerifyReport> run(const std::string& path, bool against = true) {
    VerifyOptions options;
    options.artefact = path;
    options.original = against ? kTales : "";
    options.text = text();
    options.max_tokens = 72;  // one whole prefill call and a part of one
    options.threads = 2;
    return verify(options, {});
  }
  static const std::string& text() {
    static const std::string all = slurp(POME_SOURCE_DIR "/data/held-out.txt").substr(0, 2000);
    return all;
  }
  static std::string problems(const VerifyReport& report) {
    std::string out;
    for (const std::string& problem : report.problems) out += problem + "\n";
    return out;
  }

  TempFolder folder_{true};
};

TEST_F(VerifyTest, WhatConvertWroteIsInOrder) {
  // How far the scheme may take the logits from the original; the package itself must be exact.
  const std::pair<const char*, double> schemes[] = {{"f16", 1e-4}, {"int4", 0.1}, {"lut4", 0.1}};
  for (const auto& [scheme, kld] : schemes) {
    SCOPED_TRACE(scheme);
    const auto report = run(artefact(scheme));
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_TRUE(report->ok) << problems(*report);
    EXPECT_TRUE(report->has_manifest && report->has_semantics && report->has_comparison);
    EXPECT_TRUE(report->integrity.empty());
    EXPECT_FALSE(report->first_difference.has_value());
    ASSERT_EQ(report->functions.size(), 2u);
    EXPECT_EQ(report->functions[0].name, "prefill");
    EXPECT_EQ(report->functions[0].tokens, 71);
    EXPECT_EQ(report->functions[1].name, "decode");
    EXPECT_EQ(report->functions[1].tokens, 47);
    for (const FunctionReport& function : report->functions) {
      EXPECT_LT(function.mean_kld, 1e-5) << function.name;
      EXPECT_LT(function.max_abs_error, 0.05) << function.name;
      EXPECT_GT(function.max_abs_error, 0) << function.name;  // two programs, not one twice
    }
    EXPECT_EQ(report->against_original.artefact.tokens, 71);
    EXPECT_LT(report->against_original.mean_kld, kld);
    EXPECT_LT(report->engine_max_abs_error, 1e-3);
    EXPECT_EQ(report->graph_hash, manifest_of(artefact(scheme)).graph_hash);
    EXPECT_EQ(report->graph_hash.size(), 64u);
  }
}

// The graph does not round activations: the package is held against it without that, and against
// the original with.
TEST_F(VerifyTest, Int8ActivationsAndMasksAreInOrderToo) {
  ConvertOptions options;
  options.model = kTales;
  options.output = folder_ / "w8a8";
  options.weights = "int8";
  options.activations = "int8";
  options.calibrate = POME_SOURCE_DIR "/data/held-out.txt";
  options.calibrate_tokens = 64;
  options.context = 128;
  const auto made = convert(options, {});
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  EXPECT_EQ(made->activations.size(), 33u);
  const auto report = run(options.output);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_TRUE(report->ok) << problems(*report);
  for (const FunctionReport& function : report->functions) EXPECT_LT(function.mean_kld, 1e-5);
  EXPECT_GT(report->against_original.mean_kld, 5e-4);
  EXPECT_LT(report->against_original.mean_kld, 0.1);
}

TEST_F(VerifyTest, OneFunctionForAllIsInOrderToo) {
  const std::string path = folder_ / "one";
  ASSERT_TRUE(make_artefact(path, "int8", 128, 2, kTales, true).ok());
  const auto report = run(path);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_TRUE(report->ok) << problems(*report);
}

// Another basis everywhere, and a product that the model does not have: of a model with positions,
// means that are taken away, and a tied head.
TEST_F(VerifyTest, WhatWasTransformedIsInOrderToo) {
  for (const char* target : {"coreml", "onnx"}) {
    SCOPED_TRACE(target);
    ConvertOptions convert_options;
    convert_options.model = POME_SOURCE_DIR "/models/zoo/gpt2";
    convert_options.output = folder_ / target;
    convert_options.target = target;
    convert_options.weights = "f16";
    convert_options.context = 128;
    convert_options.transforms = "norms,residual,values,order,scale";
    const auto made = convert(convert_options, {});
    ASSERT_TRUE(made.ok()) << made.status().to_string();
    ASSERT_EQ(made->transforms.size(), 5u);
    EXPECT_TRUE(made->transforms[1].used) << made->transforms[1].obstacle;
    VerifyOptions options;
    options.artefact = convert_options.output;
    options.original = convert_options.model;
    options.text = text();
    options.max_tokens = 72;
    const auto report = verify(options, {});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_TRUE(report->ok) << problems(*report);
    EXPECT_LT(report->against_original.mean_kld, 1e-3);
  }
}

TEST_F(VerifyTest, ABarePackageHasNoManifestButItsNumbersCount) {
  const auto report = run(artefact("int4") + "/model.mlpackage");
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->ok) << problems(*report);

  const std::string path = copy_of("int4");
  std::filesystem::remove(path + "/manifest.json");
  swap_inputs(path, {"prefill"}, "layers_0_attention_grouped", "key", "value");
  const auto bare = run(path + "/model.mlpackage");
  ASSERT_TRUE(bare.ok());
  EXPECT_FALSE(bare->has_manifest);
  EXPECT_FALSE(bare->ok);
}

// ---- one weight byte

TEST_F(VerifyTest, AChangedWeightByteIsTracedToItsTensor) {
  for (const char* name :
       {"embedding_weight.scale", "embedding_weight.data", "layers_0_attention_norm_weight",
        "layers_3_attention_k_weight.data", "layers_7_mlp_down_weight.scale", "norm_weight"}) {
    SCOPED_TRACE(name);
    const ManifestTensor tensor = tensor_of(artefact("int4"), name);
    ASSERT_GT(tensor.size, 0u);
    for (const uint64_t at : {uint64_t{0}, tensor.size / 2, tensor.size - 1}) {
      const std::string path = copy_of("int4");
      change_byte(path + "/" + tensor.file, tensor.offset + at,
                  [](char byte) { return static_cast<char>(byte ^ 1); });
      const auto report = run(path, false);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      EXPECT_FALSE(report->ok);
      ASSERT_EQ(report->integrity.size(), 1u);
      EXPECT_EQ(report->integrity[0].file, kWeightFile);
      EXPECT_EQ(report->integrity[0].tensor, name);
      EXPECT_EQ(problems(*report),
                "integrity: " + kWeightFile + ", tensor " + name + " SHA-256 differs\n");
    }
  }
}

TEST_F(VerifyTest, AChangedWeightByteShowsInTheNumbersAndNotInTheGraph) {
  const auto clean = run(artefact("int4"));
  ASSERT_TRUE(clean.ok());
  const std::string path = copy_of("int4");
  const ManifestTensor tensor = tensor_of(path, "layers_0_attention_norm_weight");
  change_byte(path + "/" + tensor.file, tensor.offset + 1,
              [](char byte) { return static_cast<char>(byte ^ 0x80); });  // the sign of one factor
  const auto report = run(path);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  ASSERT_EQ(report->integrity.size(), 1u);
  EXPECT_EQ(report->integrity[0].tensor, tensor.name);
  ASSERT_TRUE(report->has_comparison);
  EXPECT_GT(report->against_original.max_abs_error, clean->against_original.max_abs_error);
  EXPECT_NE(report->against_original.mean_kld, clean->against_original.mean_kld);
  // The package still computes what the graph says, with the weight it has.
  for (const FunctionReport& function : report->functions) EXPECT_TRUE(function.ok);
  EXPECT_FALSE(report->first_difference.has_value());
  EXPECT_EQ(report->problems.size(), 1u);
}

TEST_F(VerifyTest, AByteBetweenTensorsBelongsToNone) {
  const std::string path = copy_of("int4");
  const ManifestTensor tensor = tensor_of(path, "layers_0_attention_norm_weight");
  // Bytes 32 to 63 of the record before the data are reserved.
  change_byte(path + "/" + tensor.file, tensor.offset - 1,
              [](char byte) { return static_cast<char>(byte ^ 1); });
  const auto report = run(path, false);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_EQ(report->integrity.size(), 1u);
  EXPECT_EQ(report->integrity[0].file, kWeightFile);
  EXPECT_EQ(report->integrity[0].tensor, "");
}

TEST_F(VerifyTest, AWeightThatMakesNaNIsAFindingNotAnError) {
  for (const bool rewritten : {false, true}) {
    const std::string path = copy_of("int4");
    const ManifestTensor tensor = tensor_of(path, "layers_2_mlp_norm_weight");
    change_byte(path + "/" + tensor.file, tensor.offset + 1, [](char) { return '\x7e'; });
    if (rewritten) rewrite_manifest(path);
    const auto report = run(path);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_FALSE(report->ok);
    EXPECT_EQ(report->integrity.size(), rewritten ? 0u : 1u);
    ASSERT_EQ(report->functions.size(), 2u);
    for (const FunctionReport& function : report->functions) {
      EXPECT_FALSE(function.ok);
      EXPECT_EQ(function.tokens, 0);
    }
    EXPECT_FALSE(report->has_comparison);
    // The graph of these weights gives NaN as well: the program is not to blame.
    EXPECT_FALSE(report->first_difference.has_value());
    EXPECT_NE(problems(*report).find("prefill: the logits hold NaN or infinity"), std::string::npos)
        << problems(*report);
  }
}

// ---- one operation's inputs

struct Swap {
  const char* scheme;
  std::vector<std::string> functions;
  const char *output, *a, *b;    // whose inputs
  const char* first_difference;  // what must be named
};

TEST_F(VerifyTest, SwappedInputsAreFoundWithAndWithoutTheManifest) {
  const std::vector<std::string> both = {"decode", "prefill"};
  const Swap swaps[] = {
      {"int4", both, "layers_0_attention_grouped", "key", "value", "layers_0_attention"},
      {"lut4", {"prefill"}, "layers_5_attention_grouped", "key", "value", "layers_5_attention"},
      {"f16", {"decode"}, "layers_3_attention_grouped", "key", "value", "layers_3_attention"},
      {"f16", both, "layers_1_mlp_norm_unit", "x", "y", "layers_1_mlp_norm"},
  };
  for (const Swap& swap : swaps) {
    SCOPED_TRACE(swap.output);
    const std::string path = copy_of(swap.scheme);
    swap_inputs(path, swap.functions, swap.output, swap.a, swap.b);
    for (const bool rewritten : {false, true}) {
      if (rewritten) rewrite_manifest(path);
      const auto report = run(path);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      EXPECT_FALSE(report->ok);
      if (rewritten) {
        EXPECT_TRUE(report->integrity.empty());
      } else {
        ASSERT_EQ(report->integrity.size(), 1u);
        EXPECT_EQ(report->integrity[0].file, kModelFile);
        EXPECT_EQ(report->integrity[0].tensor, "");
      }
      ASSERT_EQ(report->functions.size(), 2u);
      for (const FunctionReport& function : report->functions) {
        bool spoiled = false;
        for (const std::string& name : swap.functions) spoiled |= name == function.name;
        // The decode path of 47 tokens never prefills; prefill ends with calls of one token where
        // the rest of a text is short, so only what was swapped for certain is asserted.
        if (spoiled) {
          EXPECT_FALSE(function.ok) << function.name;
          EXPECT_GT(function.max_abs_error, 0.05) << function.name;
        }
      }
      ASSERT_TRUE(report->first_difference.has_value()) << problems(*report);
      EXPECT_EQ(report->first_difference->value, swap.first_difference);
      EXPECT_GT(report->first_difference->relative_error, 0.02);
      if (swap.functions.size() == 1) {
        EXPECT_EQ(report->first_difference->function, swap.functions[0]);
      }
      EXPECT_NE(problems(*report).find("the first value that differs is " +
                                       std::string(swap.first_difference)),
                std::string::npos);
    }
  }
}

TEST_F(VerifyTest, SwappedHalvesOfARotationAreFound) {
  const std::string path = copy_of("int4");
  change_program(path, [](mil::Model* model) {
    mil::Operation* op = find_op(model, "decode", "layers_2_q_rope_swapped");
    ASSERT_NE(op, nullptr);
    auto* values = find_input(op, "values");
    ASSERT_TRUE(values && values->size() == 2);
    std::swap((*values)[0], (*values)[1]);
  });
  rewrite_manifest(path);
  const auto report = run(path);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  // At position 0 nothing is rotated: the difference begins with the second token.
  ASSERT_TRUE(report->first_difference.has_value()) << problems(*report);
  EXPECT_EQ(report->first_difference->function, "decode");
  EXPECT_EQ(report->first_difference->value, "layers_2_q_rope");
}

TEST_F(VerifyTest, SwappedInputsThatDoNotFitAreAFinding) {
  const std::string path = copy_of("int4");
  swap_inputs(path, {"prefill"}, "layers_4_mlp_down", "x", "weight");
  rewrite_manifest(path);
  const auto report = run(path);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  EXPECT_TRUE(report->integrity.empty());
  EXPECT_NE(problems(*report).find("layers_4_mlp_down"), std::string::npos) << problems(*report);
}

TEST_F(VerifyTest, SwappedFactorsChangeTheFileButNotTheNumbers) {
  const std::string path = copy_of("int4");
  swap_inputs(path, {"prefill", "decode"}, "layers_0_mlp_swiglu", "x", "y");
  const auto report = run(path);
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->ok);
  EXPECT_EQ(report->integrity.size(), 1u);
  for (const FunctionReport& function : report->functions) EXPECT_TRUE(function.ok);
  rewrite_manifest(path);
  const auto rewritten = run(path);
  ASSERT_TRUE(rewritten.ok());
  EXPECT_TRUE(rewritten->ok) << problems(*rewritten);
}

TEST_F(VerifyTest, AnotherWeightAtTheSamePlaceIsSeenInTheNumbers) {
  // The gates of two layers have one shape: no check of types sees which one is used.
  const std::string path = copy_of("f16");
  change_program(path, [](mil::Model* model) {
    for (const char* function : {"prefill", "decode"}) {
      mil::Operation* gate = find_op(model, function, "layers_1_mlp_gate");
      ASSERT_NE(gate, nullptr);
      *find_input(gate, "weight") = {mil::Binding(std::string("layers_0_mlp_gate_weight"))};
    }
  });
  rewrite_manifest(path);
  const auto report = run(path);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  ASSERT_TRUE(report->first_difference.has_value()) << problems(*report);
  EXPECT_EQ(report->first_difference->value, "layers_1_mlp_gate");
}

// ---- what cannot be judged

TEST_F(VerifyTest, TruncatedOrMissingWeightsAreAnError) {
  const uint64_t size = std::filesystem::file_size(artefact("int4") + "/" + kWeightFile);
  for (const uint64_t kept : {uint64_t{0}, uint64_t{63}, uint64_t{64}, size / 2, size - 1}) {
    const std::string path = copy_of("int4");
    std::filesystem::resize_file(path + "/" + kWeightFile, kept);
    for (const bool against : {false, true}) {
      const auto report = run(path, against);
      ASSERT_FALSE(report.ok()) << kept;
      EXPECT_EQ(exit_code(report.status().code()), 3);
      EXPECT_NE(report.status().to_string().find("weight.bin"), std::string::npos)
          << report.status().to_string();
    }
  }
  const std::string path = copy_of("int4");
  std::filesystem::remove(path + "/" + kWeightFile);
  const auto report = run(path);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(exit_code(report.status().code()), 3);
  EXPECT_NE(report.status().to_string().find("weight.bin"), std::string::npos);
}

TEST_F(VerifyTest, OtherFilesAreHeldAgainstTheManifest) {
  const std::string path = copy_of("int4");
  std::filesystem::remove(path + "/tokenizer_config.json");
  spit(path + "/model.mlpackage/stray.txt", "?");
  spit(path + "/generation_config.json", "{}");
  const auto report = run(path, false);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->ok);
  EXPECT_EQ(problems(*report),
            "integrity: generation_config.json has 2 bytes, the manifest says " +
                std::to_string(std::filesystem::file_size(kTales + "/generation_config.json")) +
                "\nintegrity: tokenizer_config.json is missing\n"
                "integrity: model.mlpackage/stray.txt is not listed in the manifest\n");
}

TEST_F(VerifyTest, AManifestThatContradictsItselfIsAFinding) {
  const std::string path = copy_of("int4");
  Manifest manifest = manifest_of(path);
  manifest.tree_hash[0] = manifest.tree_hash[0] == '0' ? '1' : '0';
  spit(path + "/manifest.json", to_json(manifest));
  const auto report = run(path, false);
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->integrity.size(), 1u);
  EXPECT_EQ(report->integrity[0].file, "manifest.json");
}

TEST_F(VerifyTest, ALinkInTheArtefactIsRefused) {
  const std::string path = copy_of("int4");
  std::filesystem::create_symlink("/etc/hostname", path + "/link");
  const auto report = run(path, false);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().refusal(), Refusal::kLink);
}

TEST_F(VerifyTest, LimitsThatTheCallerSets) {
  VerifyOptions options;
  options.artefact = artefact("int4");
  options.original = kTales;
  options.text = text();
  options.max_tokens = 40;
  options.max_mean_kld = 1e-9;
  options.min_top1_agreement = 1.0001;
  options.max_ppl_increase_percent = -99;
  const auto report = verify(options, {});
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->ok);
  EXPECT_EQ(report->problems.size(), 3u) << problems(*report);
  for (const std::string& problem : report->problems) EXPECT_EQ(problem.rfind("gate: ", 0), 0u);

  options.max_mean_kld = 10;
  options.min_top1_agreement = 0.1;
  options.max_ppl_increase_percent = 100;
  const auto wide = verify(options, {});
  ASSERT_TRUE(wide.ok());
  EXPECT_TRUE(wide->ok) << problems(*wide);
}

TEST_F(VerifyTest, CancelledInTheMiddle) {
  CancelToken cancel;
  cancel.cancel();
  WorkContext work;
  work.cancel = &cancel;
  VerifyOptions options;
  options.artefact = artefact("int4");
  options.original = kTales;
  options.text = text();
  const auto report = verify(options, work);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), StatusCode::kInterrupted);
}

}  // namespace
}  // namespace pome
