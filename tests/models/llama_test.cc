#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/models.h"
#include "models/rope.h"
#include "tensor/half.h"

namespace pome {
namespace {

// A checkpoint in memory: every tensor counts up from its own start value.
class FakeCheckpoint {
 public:
  explicit FakeCheckpoint(bool gguf) {
    checkpoint.format = gguf ? "gguf" : "safetensors", checkpoint.path = "fake";
  }
  void add(const std::string& name, Shape shape, EncodingKind kind = EncodingKind::kF32) {
    const size_t count = static_cast<size_t>(*element_count(shape)),
                 size = kind == EncodingKind::kF32 ? 4 : 8;
    std::vector<std::byte> bytes(count * size);
    if (kind == EncodingKind::kF32)
      for (size_t i = 0; i < count; ++i) {
        const float value =
            static_cast<float>(i) * 0.001f + static_cast<float>(checkpoint.tensors.size());
        std::memcpy(bytes.data() + 4 * i, &value, 4);
      }
    CheckpointTensor tensor;
    tensor.name = name;
    tensor.shape = std::move(shape);
    tensor.encoding = Encoding::plain(kind);
    tensor.bytes = bytes.size();
    tensor.source = memory_source(std::move(bytes), name);
    checkpoint.tensors.push_back(std::move(tensor));
  }
  void remove(const std::string& name) {
    std::erase_if(checkpoint.tensors,
                  [&](const CheckpointTensor& tensor) { return tensor.name == name; });
  }
  Checkpoint checkpoint;
};

constexpr int64_t kHidden = 8, kFfn = 12, kVocab = 10;

FakeCheckpoint hugging_face(const std::string& extra = "", bool tied = true) {
  FakeCheckpoint fake(false);
  fake.checkpoint.config = *parse_json(
      R"({"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": )" +
          std::string(tied ? "true" : "false") + extra + "}",
      "config.json");
  fake.add("model.embed_tokens.weight", {kVocab, kHidden});
  fake.add("model.norm.weight", {kHidden});
  const std::string at = "model.layers.0.";
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
    fake.add(at + norm + ".weight", {kHidden});
  fake.add(at + "self_attn.q_proj.weight", {8, kHidden});
  for (const char* name : {"k_proj", "v_proj"})
    fake.add(at + "self_attn." + name + ".weight", {4, kHidden});
  fake.add(at + "self_attn.o_proj.weight", {kHidden, 8});
  for (const char* name : {"gate_proj", "up_proj"})
    fake.add(at + "mlp." + name + ".weight", {kFfn, kHidden});
  fake.add(at + "mlp.down_proj.weight", {kHidden, kFfn});
  if (!tied) fake.add("lm_head.weight", {kVocab, kHidden});
  return fake;
}

FakeCheckpoint gguf() {
  FakeCheckpoint fake(true);
  fake.checkpoint.gguf = *parse_json(
      R"({"general.architecture": "llama", "llama.embedding_length": 8, "llama.feed_forward_length": 12, "llama.block_count": 1, "llama.attention.head_count": 2,
          "llama.attention.head_count_kv": 1, "llama.context_length": 64, "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.dimension_count": 4})",
      "gguf");
  fake.add("token_embd.weight", {kVocab, kHidden});
  fake.add("output_norm.weight", {kHidden});
  for (const char* norm : {"attn_norm", "ffn_norm"})
    fake.add(std::string("blk.0.") + norm + ".weight", {kHidden});
  fake.add("blk.0.attn_q.weight", {8, kHidden});
  fake.add("blk.0.attn_k.weight", {4, kHidden});
  fake.add("blk.0.attn_v.weight", {4, kHidden});
  fake.add("blk.0.attn_output.weight", {kHidden, 8});
  fake.add("blk.0.ffn_gate.weight", {kFfn, kHidden});
  fake.add("blk.0.ffn_up.weight", {kFfn, kHidden});
  fake.add("blk.0.ffn_down.weight", {kHidden, kFfn});
  return fake;
}

std::string error_of(const FakeCheckpoint& fake) {
  const auto graph = build_graph(fake.checkpoint);
  return graph.ok() ? "ok" : graph.status().to_string();
}
#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

const Constant& constant(const Graph& graph, const std::string& name) {
  for (const Constant& c : graph.constants)
    if (c.name == name) return c;
  ADD_FAILURE() << "no constant " << name;
  return graph.constants[0];
}

TEST(Llama, BuildsTiedAndUntied) {
  const auto tied = build_graph(hugging_face().checkpoint);
  ASSERT_TRUE(tied.ok()) << tied.status().to_string();
  EXPECT_EQ(tied->info.family, "llama");
  EXPECT_EQ(tied->info.head_dim, 4);
  EXPECT_TRUE(tied->info.tie_word_embeddings);
  const auto untied = build_graph(hugging_face("", false).checkpoint);
  ASSERT_TRUE(untied.ok()) << untied.status().to_string();
  EXPECT_EQ(untied->constants.size(), tied->constants.size() + 1);
  EXPECT_EQ(constant(*untied, "head.weight").role, Constant::Role::kHead);
}

TEST(Llama, TiedCheckpointMayStoreItsHeadAndOldFrequencies) {
  FakeCheckpoint fake = hugging_face();
  fake.add("lm_head.weight", {kVocab, kHidden});
  fake.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2});
  EXPECT_EQ(error_of(fake), "ok");
}

TEST(Llama, TiedMatrixMayBeStoredAsTheHead) {
  FakeCheckpoint fake = hugging_face();
  for (CheckpointTensor& tensor : fake.checkpoint.tensors)
    if (tensor.name == "model.embed_tokens.weight") tensor.name = "lm_head.weight";
  EXPECT_EQ(error_of(fake), "ok");
}

// As transformers goes by the values: a head of its own is one, whatever the configuration says.
TEST(Llama, TiedHeadWithOtherValuesIsNotTied) {
  FakeCheckpoint fake = hugging_face();
  const auto embedding = std::find_if(
      fake.checkpoint.tensors.begin(), fake.checkpoint.tensors.end(),
      [](const CheckpointTensor& tensor) { return tensor.name == "model.embed_tokens.weight"; });
  CheckpointTensor same = *embedding;
  same.name = "lm_head.weight";
  fake.checkpoint.tensors.push_back(same);
  EXPECT_TRUE(build_graph(fake.checkpoint)->info.tie_word_embeddings);
  fake.remove("lm_head.weight");
  fake.add("lm_head.weight", {kVocab, kHidden});
  const auto graph = build_graph(fake.checkpoint);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_FALSE(graph->info.tie_word_embeddings);
  EXPECT_EQ(constant(*graph, "head.weight").hf_name, "lm_head.weight");
}

TEST(Llama, BaseModelWithoutPrefix) {
  FakeCheckpoint fake = hugging_face();
  for (CheckpointTensor& tensor : fake.checkpoint.tensors)
    if (tensor.name.rfind("model.", 0) == 0) tensor.name = tensor.name.substr(6);
  EXPECT_EQ(error_of(fake), "ok");
}

TEST(Llama, ListsMissingUnusedAndWrongShapesInOneError) {
  FakeCheckpoint fake = hugging_face();
  fake.remove("model.layers.0.mlp.up_proj.weight");
  fake.remove("model.norm.weight");
  fake.remove("model.layers.0.self_attn.q_proj.weight");
  fake.add("model.layers.0.self_attn.q_proj.weight", {9, kHidden});
  fake.add("model.layers.7.extra", {3});
  fake.remove("model.layers.0.input_layernorm.weight");
  fake.add("model.layers.0.input_layernorm.weight", {kHidden}, EncodingKind::kI64);
  const auto graph = build_graph(fake.checkpoint);
  ASSERT_FALSE(graph.ok());
  EXPECT_EQ(graph.status().refusal(), Refusal::kRange);
  const std::string text = graph.status().to_string();
  EXPECT_HAS(text, "missing: model.layers.0.mlp.up_proj.weight [12, 8]");
  EXPECT_HAS(text, "missing: model.norm.weight [8]");
  EXPECT_HAS(text, "wrong shape: model.layers.0.self_attn.q_proj.weight must be [8, 8], is [9, 8]");
  EXPECT_HAS(text, "unused: model.layers.7.extra [3]");
  EXPECT_HAS(text, "wrong dtype: model.layers.0.input_layernorm.weight");
}

TEST(Llama, BiasesWhereTheConfigHasThem) {
  FakeCheckpoint fake = hugging_face(R"(, "attention_bias": true, "mlp_bias": true)");
  EXPECT_HAS(error_of(fake), "missing: model.layers.0.self_attn.q_proj.bias [8]");
  EXPECT_HAS(error_of(fake), "missing: model.layers.0.mlp.down_proj.bias [8]");
  const std::string at = "model.layers.0.";
  fake.add(at + "self_attn.q_proj.bias", {8});
  for (const char* name : {"k_proj", "v_proj"}) fake.add(at + "self_attn." + name + ".bias", {4});
  fake.add(at + "self_attn.o_proj.bias", {8});
  for (const char* name : {"gate_proj", "up_proj"}) fake.add(at + "mlp." + name + ".bias", {12});
  fake.add(at + "mlp.down_proj.bias", {8});
  EXPECT_EQ(error_of(fake), "ok");
}

TEST(Llama, RefusesBadConfigurations) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("num_hidden_layers": 0)", "num_hidden_layers must lie in"},
      {R"("num_attention_heads": 0)", "num_attention_heads must lie in"},
      {R"("num_key_value_heads": 3)", "must be a multiple of num_key_value_heads"},
      {R"("num_key_value_heads": 0)", "must be a multiple of num_key_value_heads"},
      {R"("hidden_size": 9)", "hidden_size 9 is not a multiple"},
      {R"("hidden_size": "8")", "hidden_size must be an integer"},
      {R"("hidden_size": 8.5)", "hidden_size must be an integer"},
      {R"("rms_norm_eps": 0)", "rms_norm_eps must be positive"},
      {R"("rms_norm_eps": -1)", "rms_norm_eps must be positive"},
      {R"("rope_theta": 0)", "rope_theta must be positive"},
      {R"("max_position_embeddings": 0)", "max_position_embeddings must lie in"},
      {R"("vocab_size": 0)", "vocab_size must lie in"},
      {R"("head_dim": 0)", "head_dim 0 is out of range"},
      {R"("tie_word_embeddings": 1)", "tie_word_embeddings must be true or false"},
      {R"("rope_scaling": 5)", "rope scaling must be an object"},
      {R"("rope_scaling": {"rope_type": "linear"})", "factor is missing"},
      {R"("rope_scaling": {"type": "linear", "factor": 0})", "factor must be positive"},
      {R"("partial_rotary_factor": 1.5)", "partial_rotary_factor must lie in"},
  };
  for (const auto& [change, message] : cases) {
    FakeCheckpoint fake = hugging_face();
    fake.checkpoint.config.update(*parse_json(std::string("{") + change + "}", "change"));
    const auto graph = build_graph(fake.checkpoint);
    ASSERT_FALSE(graph.ok()) << change;
    EXPECT_EQ(exit_code(graph.status().code()), 3) << change;
    EXPECT_HAS(graph.status().to_string(), message);
    EXPECT_HAS(graph.status().to_string(), "config.json");
  }
}

TEST(Llama, NamesWhatItDoesNotSupport) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("hidden_act": "mish")", "hidden_act 'mish'"},
      {R"("rope_scaling": {"rope_type": "spiral", "factor": 2})", "rope type 'spiral'"},
      {R"("rope_parameters": {"rope_type": "mrope", "factor": 2})", "rope type 'mrope'"},
      {R"("quantization_config": {"quant_method": "gptq"})", "quantization_config"},
      {R"("model_type": "mamba")", "model_type 'mamba'"},
  };
  for (const auto& [change, message] : cases) {
    FakeCheckpoint fake = hugging_face();
    fake.checkpoint.config.update(*parse_json(std::string("{") + change + "}", "change"));
    const auto graph = build_graph(fake.checkpoint);
    ASSERT_FALSE(graph.ok()) << change;
    EXPECT_EQ(graph.status().code(), StatusCode::kUnsupported) << change;
    EXPECT_HAS(graph.status().to_string(), message);
  }
}

TEST(Llama, BothConfigStylesGiveTheSameFrequencies) {
  const auto frequencies = [](const std::string& extra) {
    const auto graph = build_graph(hugging_face(extra).checkpoint);
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    std::vector<float> out(2);
    EXPECT_TRUE(constant(*graph, "rope.inverse_frequencies").data->read_f32(0, 1, out.data()).ok());
    return out;
  };
  const std::string scaling =
      R"("rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16)";
  const auto older = frequencies(R"(, "rope_theta": 500000.0, "rope_scaling": {)" + scaling + "}");
  const auto newer =
      frequencies(R"(, "rope_parameters": {"rope_theta": 500000.0, )" + scaling + "}");
  EXPECT_EQ(older, newer);
  EXPECT_FLOAT_EQ(older[1], static_cast<float>(1 / std::sqrt(500000.0) / 8));
  EXPECT_EQ(frequencies(R"(, "rope_scaling": null)")[0], 1.0f);
  EXPECT_FLOAT_EQ(frequencies(R"(, "rope_scaling": {"type": "linear", "factor": 4.0})")[0], 0.25f);
}

TEST(Rope, Llama3BlendsBetweenTheTwoWavelengths) {
  RopeConfig rope;
  rope.type = "llama3";
  rope.rotary_dim = 64;
  rope.theta = 500000;
  rope.factor = 32;
  rope.low_freq_factor = 1;
  rope.high_freq_factor = 4;
  rope.original_max_position_embeddings = 8192;
  const std::vector<float> got = inverse_frequencies(rope);
  int kept = 0, stretched = 0, blended = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double plain = std::pow(500000.0, -2.0 * static_cast<double>(i) / 64),
                 wavelength = 2 * M_PI / plain;
    double expected = plain;
    if (wavelength > 8192.0)
      expected = plain / 32, ++stretched;
    else if (wavelength < 8192.0 / 4)
      ++kept;
    else {
      const double smooth = (8192 / wavelength - 1) / 3;
      expected = (1 - smooth) * plain / 32 + smooth * plain;
      ++blended;
    }
    EXPECT_NEAR(got[i] / expected, 1, 1e-5) << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_GT(blended, 0);
}

TEST(Gguf, UnpermutesQueryAndKeyRows) {
  const auto graph = build_graph(gguf().checkpoint);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  // head_dim 4: the graph's rows (0, 1, 2, 3) of a head are the file's rows (0, 2, 1, 3).
  const auto rows = [&](const std::string& name, int64_t count) {
    const Constant& c = constant(*graph, name);
    std::vector<float> values(static_cast<size_t>(count * kHidden));
    EXPECT_TRUE(c.data->read_f32(0, count, values.data()).ok());
    const float start = std::floor(values[0]);
    std::vector<int> order;
    for (int64_t r = 0; r < count; ++r)
      order.push_back(static_cast<int>(
          std::lround((values[static_cast<size_t>(r * kHidden)] - start) * 1000 / kHidden)));
    return order;
  };
  EXPECT_EQ(rows("layers.0.attention.q.weight", 8), (std::vector<int>{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(rows("layers.0.attention.k.weight", 4), (std::vector<int>{0, 2, 1, 3}));
  EXPECT_EQ(rows("layers.0.attention.v.weight", 4), (std::vector<int>{0, 1, 2, 3}));
}

TEST(Gguf, UnpermutesTheBiasesOfQueriesAndKeys) {
  FakeCheckpoint fake = gguf();
  const float start = static_cast<float>(fake.checkpoint.tensors.size());
  fake.add("blk.0.attn_k.bias", {4});
  const auto graph = build_graph(fake.checkpoint);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  std::vector<float> got(4);
  ASSERT_TRUE(constant(*graph, "layers.0.attention.k.bias").data->read_f32(0, 1, got.data()).ok());
  for (const size_t i : {0u, 1u, 2u, 3u})
    EXPECT_NEAR(got[i], start + 0.001f * static_cast<float>(i % 2 * 2 + i / 2), 1e-5);
}

TEST(Gguf, RopeFactorsDivide) {
  FakeCheckpoint fake = gguf();
  fake.add("rope_freqs.weight", {2});
  const float start = static_cast<float>(fake.checkpoint.tensors.size() - 1);
  const auto graph = build_graph(fake.checkpoint);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  std::vector<float> out(2);
  ASSERT_TRUE(constant(*graph, "rope.inverse_frequencies").data->read_f32(0, 1, out.data()).ok());
  EXPECT_FLOAT_EQ(out[0], 1 / start);
  fake.remove("rope_freqs.weight");
  fake.add("rope_freqs.weight", {3});
  EXPECT_HAS(error_of(fake), "rope_freqs.weight");
}

TEST(Gguf, RefusesBadMetadata) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("llama.block_count": 0)", "llama.block_count must lie in"},
      {R"("llama.block_count": 2)", "missing: blk.1.attn_norm.weight"},
      {R"("llama.attention.head_count": 0)", "llama.attention.head_count must lie in"},
      {R"("llama.attention.head_count": "2")", "llama.attention.head_count must be an integer"},
      {R"("llama.attention.head_count_kv": 0)", "must be a multiple of num_key_value_heads"},
      {R"("llama.context_length": 0)", "llama.context_length must lie in"},
      {R"("llama.attention.layer_norm_rms_epsilon": 0)", "must be positive"},
      {R"("llama.rope.freq_base": 0)", "llama.rope.freq_base must be positive"},
      {R"("llama.rope.dimension_count": 6)", "rotary dimension 6"},
      {R"("llama.vocab_size": 11)", "differs from the 10 rows"},
  };
  for (const auto& [change, message] : cases) {
    FakeCheckpoint fake = gguf();
    fake.checkpoint.gguf.update(*parse_json(std::string("{") + change + "}", "change"));
    EXPECT_HAS(error_of(fake), message);
  }
  FakeCheckpoint tokens = gguf();
  tokens.checkpoint.tokenizer.tokens.resize(9);
  EXPECT_HAS(error_of(tokens), "9 tokens but 10 rows");
  FakeCheckpoint hostile = gguf();
  hostile.checkpoint.gguf["general.architecture"] = std::string(1 << 20, '%') + "\x1b[31m%s%n";
  const std::string text = error_of(hostile);
  EXPECT_HAS(text, "is not supported");
  EXPECT_LT(text.size(), 1000u);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace pome
