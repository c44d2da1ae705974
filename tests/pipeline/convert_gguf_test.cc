// GGUF from end to end: what is written is read back by the readers of checkpoints.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/io.h"
#include "base/temp_folder.h"
#include "formats/gguf.h"
#include "formats/manifest.h"
#include "pipeline/convert.h"
#include "support/graphs.h"
#include "support/zoo.h"

namespace pome {
namespace {

using test::graph_of;
using test::values_of;

const std::string kTales = test::kModels + "tales";

class ConvertGgufTest : public ::testing::Test {
 protected:
  Result<ConvertReport> run(const std::string& model, const std::string& scheme,
                            const std::string& name, int threads = 2) {
    ConvertOptions options;
    options.model = model;
    options.output = folder_ / name;
    options.target = "gguf";
    options.weights = scheme;
    options.force = true;
    options.imatrix = imatrix_;
    WorkContext work;
    work.threads = threads;
    return convert(options, work);
  }
  GgufFile open(const std::string& name) {
    auto source = open_for_reading(folder_ / name);
    EXPECT_TRUE(source.ok());
    auto file = read_gguf(*source, {.strict = true});
    EXPECT_TRUE(file.ok()) << file.status().to_string();
    return std::move(file).value();
  }
  static std::map<std::string, std::string> types(const GgufFile& file) {
    std::map<std::string, std::string> out;
    for (const GgufTensor& tensor : file.tensors)
      out[tensor.name] = std::string(traits(tensor.encoding).name);
    return out;
  }

  TempFolder folder_{true};
  std::string imatrix_;
};

// Every family: an f32 file holds the same graph with the same weights.
TEST_F(ConvertGgufTest, EveryFamilyComesBackAsItWas) {
  int written = 0;
  for (const std::string& name : test::zoo_names()) {
    SCOPED_TRACE(name);
    const std::string model = test::kZoo + name;
    const auto report = run(model, "f32", "a.gguf");
    if (!report.ok()) {
      EXPECT_EQ(report.status().code(), StatusCode::kUnsupported) << report.status().to_string();
      EXPECT_TRUE(name == "gptneo" || name == "latent-kv") << report.status().to_string();
      continue;
    }
    ++written;
    const Graph before = graph_of(model), after = graph_of(folder_ / "a.gguf");
    const auto hashes = hash_graph(after, nullptr);
    ASSERT_TRUE(hashes.ok());
    EXPECT_EQ(hashes->graph_hash, report->exported.hashes.graph_hash);
    ASSERT_EQ(before.nodes.size(), after.nodes.size());
    for (size_t i = 0; i < before.nodes.size(); ++i)
      ASSERT_EQ(before.nodes[i].op.index(), after.nodes[i].op.index()) << i;
    ASSERT_EQ(before.constants.size(), after.constants.size());
    for (size_t i = 0; i < before.constants.size(); ++i) {
      const Constant &a = before.constants[i], &b = after.constants[i];
      ASSERT_EQ(a.name, b.name);
      ASSERT_EQ(a.data->shape(), b.data->shape()) << a.name;
      const std::vector<float> x = values_of(*a.data), y = values_of(*b.data);
      if (!a.gguf_name.empty() && a.data->encoding().kind != EncodingKind::kMXFP4) {
        // Readers scale the queries of Gemma 2 by the size of a head.
        const float factor = a.gguf_place.factor;
        EXPECT_EQ(factor != 1, name == "gemma2" && a.gguf_name.find("attn_q") != std::string::npos);
        for (size_t k = 0; k < x.size(); ++k) ASSERT_EQ(x[k] * factor, y[k]) << a.name;
        continue;
      }
      // Frequencies are computed from what the metadata say; GGUF has no word for bounds of YaRN
      // that are not rounded.
      for (size_t k = 0; k < x.size(); ++k)
        ASSERT_TRUE(x[k] == y[k] || std::fabs(x[k] - y[k]) <= 1e-6 * std::fabs(x[k]))
            << a.name << " " << k << ": " << x[k] << ", " << y[k];
    }
  }
  EXPECT_GE(written, 18);
}

TEST_F(ConvertGgufTest, AnyNumberOfThreadsGivesTheSameBytes) {
  for (const char* scheme : {"q4_k_m", "iq4_nl", "bf16"}) {
    std::string first;
    for (const int threads : {1, 1, 2, 8}) {
      const auto report = run(kTales, scheme, "a.gguf", threads);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      const std::string bytes = slurp(folder_ / "a.gguf");
      EXPECT_EQ(bytes.size(), report->bytes);
      if (first.empty()) first = bytes;
      EXPECT_TRUE(bytes == first) << scheme << " with " << threads << " threads";
    }
  }
}

TEST_F(ConvertGgufTest, MixturesFollowTheRules) {
  ASSERT_TRUE(run(kTales, "q4_k_m", "a.gguf").ok());
  auto chosen = types(open("a.gguf"));
  EXPECT_EQ(chosen.at("token_embd.weight"), "q6_k");  // the head as well
  EXPECT_EQ(chosen.at("output_norm.weight"), "f32");
  for (int layer = 0; layer < 8; ++layer) {
    const std::string at = "blk." + std::to_string(layer) + ".";
    const bool more = layer == 0 || layer == 3 || layer == 6 || layer == 7;
    EXPECT_EQ(chosen.at(at + "attn_v.weight"), more ? "q6_k" : "q4_k") << layer;
    EXPECT_EQ(chosen.at(at + "ffn_down.weight"), more ? "q6_k" : "q4_k") << layer;
    EXPECT_EQ(chosen.at(at + "attn_q.weight"), "q4_k");
  }
  ASSERT_TRUE(run(kTales, "q3_k_m", "a.gguf").ok());
  chosen = types(open("a.gguf"));
  EXPECT_EQ(chosen.at("blk.1.attn_v.weight"), "q5_k");
  EXPECT_EQ(chosen.at("blk.2.attn_v.weight"), "q4_k");
  EXPECT_EQ(chosen.at("blk.2.attn_output.weight"), "q4_k");
  EXPECT_EQ(chosen.at("blk.2.ffn_up.weight"), "q3_k");
  // The parts of a fused tensor have biases between them.
  const auto fused = run(test::kZoo + "gpt2", "q4_k_m", "a.gguf");
  ASSERT_TRUE(fused.ok()) << fused.status().to_string();
  EXPECT_EQ(types(open("a.gguf")).at("blk.2.attn_qkv.weight"), "q8_0");  // for q6_k: rows of 64
  // Rows of 64 are no multiple of 256.
  const auto report = run(test::kZoo + "llama3", "q4_k_m", "a.gguf");
  ASSERT_TRUE(report.ok());
  chosen = types(open("a.gguf"));
  EXPECT_EQ(chosen.at("blk.1.attn_q.weight"), "q5_0");
  bool said = false;
  for (const TensorChoice& tensor : report->tensors)
    said = said || tensor.fallback == "64 columns are not a multiple of 256";
  EXPECT_TRUE(said);
}

TEST_F(ConvertGgufTest, WhatIsQuantisedAlreadyIsCopied) {
  ASSERT_TRUE(run(kTales, "q4_0", "a.gguf").ok());
  const auto again = run(folder_ / "a.gguf", "q4_0", "b.gguf");
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  const GgufFile a = open("a.gguf"), b = open("b.gguf");
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const GgufTensor& tensor : a.tensors) {
    const auto other = std::find_if(b.tensors.begin(), b.tensors.end(),
                                    [&](const GgufTensor& t) { return t.name == tensor.name; });
    ASSERT_NE(other, b.tensors.end()) << tensor.name;
    ASSERT_EQ(other->bytes, tensor.bytes);
    std::vector<std::byte> x(tensor.bytes), y(tensor.bytes);
    ASSERT_TRUE(a.source->read(tensor.offset, x).ok());
    ASSERT_TRUE(b.source->read(other->offset, y).ok());
    EXPECT_TRUE(x == y) << tensor.name;
  }
  // A larger type keeps the smaller one.
  ASSERT_TRUE(run(folder_ / "a.gguf", "q8_0", "b.gguf").ok());
  EXPECT_EQ(types(open("b.gguf")).at("blk.0.attn_q.weight"), "q4_0");
}

TEST_F(ConvertGgufTest, TheFileKnowsItsGraph) {
  const auto report = run(kTales, "q5_k_m", "a.gguf");
  ASSERT_TRUE(report.ok());
  const GgufFile file = open("a.gguf");
  const GgufValue* hash = file.find("pome.graph_hash");
  ASSERT_NE(hash, nullptr);
  EXPECT_EQ(std::get<std::string>(hash->data), report->exported.hashes.graph_hash);
  const auto hashes = hash_graph(graph_of(folder_ / "a.gguf"), nullptr);
  ASSERT_TRUE(hashes.ok());
  EXPECT_EQ(hashes->graph_hash, report->exported.hashes.graph_hash);
  EXPECT_GT(report->errors.size(), 50u);
}

TEST_F(ConvertGgufTest, AFolderHasAManifest) {
  const auto report = run(kTales, "q8_0", "out");
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const std::string folder = folder_ / "out";
  const auto manifest = read_manifest(folder + "/" + kManifestName);
  ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
  EXPECT_EQ(manifest->target, "gguf");
  EXPECT_EQ(manifest->model, "model.gguf");
  WorkContext work;
  const auto findings = check_integrity(folder, *manifest, work);
  ASSERT_TRUE(findings.ok());
  EXPECT_TRUE(findings->empty());
}

TEST_F(ConvertGgufTest, RefusesWhatItCannotWrite) {
  const auto unknown = run(kTales, "q7_k", "a.gguf");
  EXPECT_EQ(unknown.status().code(), StatusCode::kUsage);
  EXPECT_EQ(run(test::kZoo + "gptneo", "f16", "a.gguf").status().code(), StatusCode::kUnsupported);
  imatrix_ = folder_ / "nothing.dat";
  EXPECT_EQ(run(kTales, "q4_k_m", "a.gguf").status().code(), StatusCode::kMissing);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.gguf"));
}

TEST_F(ConvertGgufTest, AFullDiskLeavesNothing) {
  for (const uint64_t at : {1, 2, 3}) {
    io::FaultPlan plan;
    plan.fail_at = at;
    plan.error = ENOSPC;
    plan.op = "write";
    plan.sticky = true;
    io::set_fault_plan(plan);
    const auto report = run(kTales, "q4_k_m", "a.gguf");
    io::clear_fault_plan();
    EXPECT_EQ(report.status().code(), StatusCode::kDoesNotFit) << at;
    size_t left = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_ / ""))
      ++left;
    EXPECT_EQ(left, 0u) << at;
  }
}

}  // namespace
}  // namespace pome
