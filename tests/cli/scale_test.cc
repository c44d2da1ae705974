// Large models in small memory: a mixture of experts many times larger than what converting it may
// take. docs/scale.md has the figures of models of true size.
#include <gtest/gtest.h>

#include "cli/program.h"

namespace pome {
namespace {

using namespace test;

// A sanitizer's shadow and its list of freed blocks are not the program's memory.
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kMemoryLimit = int64_t{1} << 40, kBesideFile = kMemoryLimit;
#else
constexpr int64_t kMemoryLimit = 48 << 20, kBesideFile = 30 << 20;
#endif

// 75 million weights in stacked MXFP4 experts, 40 MB; 302 MB as floats.
constexpr const char* kConfig = R"({
  "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 512,
  "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
  "num_key_value_heads": 2, "head_dim": 64, "num_local_experts": 32, "num_experts_per_tok": 4,
  "vocab_size": 1024, "sliding_window": 128, "max_position_embeddings": 4096,
  "rope_theta": 150000, "rms_norm_eps": 1e-05, "attention_bias": true, "eos_token_id": 2,
  "quantization_config": {"quant_method": "mxfp4"}
})";

TEST(Scale, ConvertingManyExpertsTakesLittleMemory) {
  const TempFolder folder;
  spit(folder / "config.json", kConfig);
  const auto make = [&](const std::string& name, const std::string& shard_size) {
    const Ended made = run_program({MAKE_RANDOM_MODEL, folder / "config.json", "-o", folder / name,
                                    "--shard-size", shard_size});
    ASSERT_EQ(made.code, 0) << show(made);
  };
  make("one", "1GB");
  make("many", "4MB");
  ASSERT_TRUE(exists(folder / "many/model.safetensors.index.json"));

  const auto convert = [&](const std::string& name, const std::string& scheme) {
    return pome_json({"convert", folder / name, "-o", folder / (name + "." + scheme), "--weights",
                      scheme, "-t", "2"});
  };
  const Json one = convert("one", "lut2"), many = convert("many", "lut2");
  EXPECT_EQ(one["graph_hash"], many["graph_hash"]) << "the same weights, however they are cut";
  for (const Json& report : {one, many}) {
    EXPECT_LT(report["peak_memory_bytes"].get<int64_t>(), kMemoryLimit);
  }
  EXPECT_LT(convert("many", "lut4")["peak_memory_bytes"].get<int64_t>(), kMemoryLimit);

  // A byte of MXFP4 holds two parameters.
  const Json model = pome_json({"inspect", folder / "one"});
  const Json artefact = pome_json({"inspect", folder / "one.lut2"});
  EXPECT_EQ(model["parameters"], artefact["parameters"]);
  EXPECT_GT(model["parameters"].get<int64_t>(), 3 * 32 * 3 * 512 * 512);
}

// Half of the weights are the table, which is the head too, so a second copy of anything shows:
// packed and still mapped, looked up in the file while the head is packed, read and mapped.
TEST(Scale, RunningTakesLittleMoreThanTheFile) {
  const TempFolder folder;
  spit(folder / "config.json", R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
    "intermediate_size": 4096, "num_hidden_layers": 3, "num_attention_heads": 16,
    "num_key_value_heads": 4, "vocab_size": 48000, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05, "rope_theta": 10000, "tie_word_embeddings": true, "bos_token_id": 1,
    "eos_token_id": 2})");
  const auto check = [&](const std::string& name, const std::string& format,
                         const std::string& type) {
    const Ended made = run_program({MAKE_RANDOM_MODEL, folder / "config.json", "-o", folder / name,
                                    "--format", format, "--type", type});
    ASSERT_EQ(made.code, 0) << show(made);
    const Json report =
        pome_json({"bench", folder / name, "-p", "256", "-n", "2", "-r", "1", "-t", "2"});
    const int64_t kv = 3 * 2 * 256 * 258 * 2;
    EXPECT_LT(report["peak_memory_bytes"].get<int64_t>(),
              report["file_bytes"].get<int64_t>() + kv + kBesideFile)
        << name << " of " << report["file_bytes"] << " bytes";
  };
  check("packed.gguf", "gguf", "q4_k_m");
  check("mapped.gguf", "gguf", "f16");
  check("mapped", "safetensors", "bf16");
}

}  // namespace
}  // namespace pome
