// MLC packages from end to end: what is written is read back by the reader of checkpoints.
#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/io.h"
#include "base/temp_folder.h"
#include "encoding/mlc_groups.h"
#include "formats/manifest.h"
#include "formats/mlc.h"
#include "pipeline/convert.h"
#include "pipeline/target.h"
#include "support/graphs.h"
#include "support/zoo.h"
#include "tensor/half.h"

namespace pome {
namespace {

using test::graph_of;
using test::values_of;

const std::string kTales = test::kModels + "tales";

class ConvertMlcTest : public testing::Test {
 protected:
  Result<ConvertReport> run(const std::string& model, const std::string& scheme,
                            const std::string& name, int threads = 2, int64_t context = 0) {
    ConvertOptions options;
    options.model = model;
    options.output = folder_ / name;
    options.target = "mlc";
    options.weights = scheme;
    options.force = true;
    options.context = context;
    WorkContext work;
    work.threads = threads;
    return convert(options, work);
  }
  std::map<std::string, std::string> contents(const std::string& name) {
    std::map<std::string, std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / name))
      out[entry.path().filename().string()] = slurp(entry.path().string());
    return out;
  }
  TempFolder folder_{true};
};

const std::set<std::string> kUnknownToMlc = {"deepseek-mla",  "deepseek-v2-lite", "gpt-oss",
                                             "gpt-oss-mxfp4", "gptneo",           "latent-kv",
                                             "smollm3"};

// Every family: an f32 package holds the same graph with the same weights, a q4f16_1 package the
// graph whose hash it states.
TEST_F(ConvertMlcTest, EveryFamilyComesBackAsItWas) {
  for (const std::string& name : test::zoo_names()) {
    SCOPED_TRACE(name);
    const std::string model = test::kZoo + name;
    const auto report = run(model, "q0f32", "plain");
    if (kUnknownToMlc.count(name)) {
      ASSERT_FALSE(report.ok());
      EXPECT_EQ(report.status().code(), StatusCode::kUnsupported);
      const bool named = name.starts_with("deepseek");
      EXPECT_NE(report.status().message().find(named ? "w_uk and self_attn.w_uv"
                                                     : "MLC has no model of the family "),
                std::string::npos)
          << report.status().to_string();
      EXPECT_FALSE(std::filesystem::exists(folder_ / "plain"));
      continue;
    }
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    const Graph before = graph_of(model, report->context),
                after = graph_of(folder_ / "plain", report->context);
    ASSERT_EQ(before.nodes.size(), after.nodes.size());
    for (size_t i = 0; i < before.nodes.size(); ++i)
      ASSERT_TRUE(before.nodes[i].op == after.nodes[i].op) << i;
    ASSERT_EQ(before.constants.size(), after.constants.size());
    for (size_t i = 0; i < before.constants.size(); ++i) {
      const Constant &a = before.constants[i], &b = after.constants[i];
      ASSERT_EQ(a.name, b.name);
      ASSERT_EQ(a.data->shape(), b.data->shape()) << a.name;
      EXPECT_TRUE(values_of(*a.data) == values_of(*b.data)) << a.name;
    }
    const auto grouped = run(model, "q4f16_1", "grouped");
    ASSERT_TRUE(grouped.ok()) << grouped.status().to_string();
    const auto hashes = hash_graph(graph_of(folder_ / "grouped", grouped->context), nullptr);
    ASSERT_TRUE(hashes.ok());
    EXPECT_EQ(hashes->graph_hash, grouped->exported.hashes.graph_hash);
    EXPECT_EQ(grouped->exported.hashes.source_hash, report->exported.hashes.source_hash);
    for (const TensorError& tensor : grouped->errors)
      EXPECT_LT(tensor.relative_error, 0.15) << tensor.name;
    std::filesystem::remove_all(folder_ / "plain");
    std::filesystem::remove_all(folder_ / "grouped");
  }
}

// What is asked of the disk is what is written: gpt2 has its embedding twice, qwen2-moe rows that
// are padded.
TEST_F(ConvertMlcTest, KnowsBeforehandWhatItWillWrite) {
  for (const char* name : {"gpt2", "qwen2-moe", "llama3"})
    for (const char* scheme : {"q4f16_1", "q0f16"}) {
      SCOPED_TRACE(std::string(name) + " " + scheme);
      ConvertOptions options;
      options.model = test::kZoo + name;
      options.weights = scheme;
      options.chunk = 64;
      ConvertReport report;
      const auto target = mlc_writer();
      ASSERT_TRUE(target->prepare(options, &report).ok());
      const auto checkpoint = open_checkpoint(options.model);
      ASSERT_TRUE(checkpoint.ok());
      const auto graph = target->build(*checkpoint, options, &report);
      ASSERT_TRUE(graph.ok()) << graph.status().to_string();
      const auto quantized = target->quantize(*graph, options, &report);
      ASSERT_TRUE(quantized.ok());
      const auto written = run(options.model, scheme, "out");
      ASSERT_TRUE(written.ok()) << written.status().to_string();
      EXPECT_EQ(target->stored_bytes(quantized->graph), written->exported.weight_bytes);
    }
}

// A package of another tool has no config.json: MLC's own words give the same graph.
TEST_F(ConvertMlcTest, ThePackageAloneSaysWhatTheModelIs) {
  for (const std::string& name : test::zoo_names()) {
    if (kUnknownToMlc.count(name)) continue;
    // Of these MLC's words leave something out: soft caps, two ropes, windows.
    if (name == "gemma2" || name == "gemma3" || name == "mistral" || name == "phi3") continue;
    SCOPED_TRACE(name);
    const auto report = run(test::kZoo + name, "q0f16", "plain");
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    std::filesystem::remove(folder_ / "plain/config.json");
    const auto hashes = hash_graph(graph_of(folder_ / "plain", report->context), nullptr);
    ASSERT_TRUE(hashes.ok());
    EXPECT_EQ(hashes->graph_hash, report->exported.hashes.graph_hash);
  }
}

TEST_F(ConvertMlcTest, AnyNumberOfThreadsGivesTheSameBytes) {
  for (const std::string& model : {kTales, test::kZoo + "qwen2-moe"}) {
    ASSERT_TRUE(run(model, "q4f16_1", "first", 1).ok());
    const auto first = contents("first");
    for (const int threads : {1, 2, 8}) {
      ASSERT_TRUE(run(model, "q4f16_1", "again", threads).ok());
      EXPECT_TRUE(first == contents("again")) << model << " with " << threads << " threads";
    }
    EXPECT_GE(first.size(), 6u);
  }
}

// The squared error of every matrix is at most that of MLC's own rule: max|w| / 7, rounded.
TEST_F(ConvertMlcTest, GroupsFitBetterThanByTheLargestValue) {
  const auto report = run(kTales, "q4f16_1", "out");
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const Graph before = graph_of(kTales, report->context),
              after = graph_of(folder_ / "out", report->context);
  int matrices = 0;
  for (size_t i = 0; i < before.constants.size(); ++i) {
    const Constant& constant = after.constants[i];
    if (constant.data->encoding() != Encoding::int_blocks(4, kMlcGroup)) continue;
    ++matrices;
    const std::vector<float> w = values_of(*before.constants[i].data),
                             v = values_of(*constant.data);
    double ours = 0, theirs = 0;
    for (size_t first = 0; first < w.size(); first += 32) {
      float largest = 0;
      for (size_t k = first; k < first + 32; ++k) largest = std::max(largest, std::fabs(w[k]));
      const float scale = f16_to_f32(f32_to_f16(largest / 7));
      for (size_t k = first; k < first + 32; ++k) {
        const float code = scale > 0 ? std::clamp(std::round(w[k] / scale), -7.0f, 7.0f) : 0;
        theirs += std::pow(static_cast<double>(w[k] - code * scale), 2);
        ours += std::pow(static_cast<double>(w[k] - v[k]), 2);
      }
    }
    EXPECT_LT(ours, 0.8 * theirs) << constant.name;
  }
  EXPECT_GT(matrices, 40);
}

TEST_F(ConvertMlcTest, AGgufFileGivesTheSamePackageWhereItSaysAll) {
  for (const char* name : {"llama3", "qwen3", "gpt2", "phi3", "gemma", "mixtral", "gptneox"}) {
    SCOPED_TRACE(name);
    ConvertOptions options;
    options.model = test::kZoo + name;
    options.output = folder_ / (std::string(name) + ".gguf");
    options.target = "gguf";
    options.weights = "f32";
    ASSERT_TRUE(convert(options, {}).ok());
    const auto direct = run(test::kZoo + name, "q0f16", "direct");
    ASSERT_TRUE(direct.ok()) << direct.status().to_string();
    const auto report = run(options.output, "q0f16", "through");
    if (std::string(name) == "llama3") {
      // Factors of its frequencies, for which configurations have no words.
      EXPECT_EQ(report.status().code(), StatusCode::kUnsupported) << report.status().to_string();
      continue;
    }
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(report->exported.hashes.graph_hash, direct->exported.hashes.graph_hash);
    EXPECT_TRUE(contents("direct")["params_shard_0.bin"] ==
                contents("through")["params_shard_0.bin"]);
  }
}

TEST_F(ConvertMlcTest, TheConfigurationIsWhatMlcReads) {
  const auto report = run(kTales, "q4f16_1", "out", 2, 256);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto chat = read_json_file(folder_ / "out/mlc-chat-config.json");
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ((*chat)["model_type"], "llama");
  EXPECT_EQ((*chat)["quantization"], "q4f16_1");
  EXPECT_EQ((*chat)["context_window_size"], 256);
  EXPECT_EQ((*chat)["prefill_chunk_size"], 256);
  EXPECT_EQ(report->chunk, 256);
  EXPECT_EQ((*chat)["vocab_size"], 4096);
  const Json& config = (*chat)["model_config"];
  EXPECT_EQ(config["hidden_size"], 256);
  EXPECT_EQ(config["intermediate_size"], 768);
  EXPECT_EQ(config["position_embedding_base"], 10000);
  EXPECT_EQ(config["context_window_size"], 256);
  EXPECT_EQ((*chat)["pome"]["graph_hash"], report->exported.hashes.graph_hash);
  const Json& talk = (*chat)["conv_template"];
  for (const char* key : {"system_template", "system_message", "add_role_after_system_message",
                          "roles", "role_templates", "messages", "seps", "role_content_sep",
                          "role_empty_sep", "stop_str", "stop_token_ids"})
    EXPECT_TRUE(talk.contains(key)) << key;
  // What TVM must do is said, with the command.
  std::string notes;
  for (const std::string& note : report->notes) notes += note + "\n";
  EXPECT_NE(notes.find("mlc_llm compile"), std::string::npos) << notes;
  EXPECT_NE(notes.find("--device iphone"), std::string::npos) << notes;
  EXPECT_NE(notes.find("estimated_vram_bytes"), std::string::npos) << notes;
}

TEST_F(ConvertMlcTest, TheEmbeddingMayStayAsItIs) {
  ConvertOptions options;
  options.model = kTales;
  options.output = folder_ / "out";
  options.target = "mlc";
  options.weights = "q4f16_1";
  options.embedding = "f16";
  const auto report = convert(options, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto cache = read_mlc_cache(folder_ / "out");
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(cache->tensors[0].name, "model.embed_tokens.weight");
  EXPECT_EQ(cache->tensors[0].encoding, EncodingKind::kF16);
  const auto chat = read_json_file(folder_ / "out/mlc-chat-config.json");
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ((*chat)["quantization"], "q4f16_2");
}

TEST_F(ConvertMlcTest, RefusesSchemesOfOthers) {
  for (const char* scheme : {"lut4", "q4_k_m", "int8", "q4f16_0"})
    EXPECT_EQ(run(kTales, scheme, "out").status().code(), StatusCode::kUsage) << scheme;
  EXPECT_EQ(run(kTales, "q4f16_1", "out", 1, 1 << 20).status().code(), StatusCode::kUsage);
}

// Whatever operation fails: nothing is left, and the error says what did not fit.
TEST_F(ConvertMlcTest, AFullDiskLeavesNothing) {
  ASSERT_TRUE(run(test::kZoo + "llama3", "q4f16_1", "probe").ok());
  std::filesystem::remove_all(folder_ / "probe");
  io::clear_fault_plan();
  ASSERT_TRUE(run(test::kZoo + "llama3", "q4f16_1", "probe").ok());
  const uint64_t operations = io::operation_count();
  std::filesystem::remove_all(folder_ / "probe");
  for (uint64_t k = 1; k <= operations; k += 3) {
    io::FaultPlan plan;
    plan.fail_at = k;
    plan.error = ENOSPC;
    plan.sticky = false;
    io::set_fault_plan(plan);
    const auto report = run(test::kZoo + "llama3", "q4f16_1", "out");
    io::clear_fault_plan();
    if (report.ok()) {
      std::filesystem::remove_all(folder_ / "out");
      continue;
    }
    EXPECT_NE(report.status().code(), StatusCode::kBadInput) << report.status().to_string();
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out")) << k;
  }
  EXPECT_GT(operations, 10u);
}

}  // namespace
}  // namespace pome
