// Configuration variants of the dense families: what is refused by name, what both styles of
// config.json mean, and GGUF twins made from the model collection by the rules of llama.cpp's
// converter.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "formats/checkpoint.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "models/rope.h"

namespace pome {
namespace {

const std::string kZoo = POME_SOURCE_DIR "/models/zoo/";
#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

Checkpoint with_config(const std::string& model_type, const std::string& extra) {
  Checkpoint out;
  out.format = "safetensors";
  out.path = "fake";
  out.config = *parse_json(
      R"({"vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 4,
          "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64})",
      "config.json");
  out.config["model_type"] = model_type;
  out.config.update(*parse_json("{" + extra + "}", "extra"));
  return out;
}

std::string answer(const std::string& model_type, const std::string& extra) {
  const auto info = read_model_info(with_config(model_type, extra));
  if (info.ok()) return "ok";
  return (info.status().code() == StatusCode::kUnsupported ? "unsupported: " : "bad: ") +
         info.status().to_string();
}

TEST(DenseFamilies, NameWhatTheyDoNotSupport) {
  const std::vector<std::array<std::string, 3>> cases = {
      {"mistral", R"("attention_bias": true)", "attention_bias in this family"},
      {"mistral", R"("hidden_act": "xielu")", "hidden_act 'xielu'"},
      {"mistral", R"("layer_types": ["full_attention", "chunked_attention", "full_attention",
                                     "full_attention"])",
       "layer type 'chunked_attention'"},
      {"qwen2", R"("rope_scaling": {"type": "mrope", "mrope_section": [1]})", "rope type 'mrope'"},
      {"qwen3", R"("quantization_config": {"quant_method": "awq"})", "quantization_config"},
      {"phi3", R"("mlp_bias": true)", "mlp_bias in this family"},
      {"llama", R"("partial_rotary_factor": 0.5)", "partial_rotary_factor in this family"},
      {"llama", R"("rope_parameters": {"full_attention": {"rope_theta": 5}})",
       "rope_parameters by layer type"},
      {"mistral", R"("layer_types": ["full_attention", "full_attention", "full_attention",
                                     "full_attention"])",
       "layer_types that differ from sliding_window"},
      {"phi3", R"("rope_scaling": {"type": "linear", "factor": 2})", "rope type 'linear'"},
      {"gpt_neox", R"("rotary_pct": 0.8, "rope_scaling": {"type": "yarn", "factor": 2})",
       "rope type 'yarn' on an odd rotary dimension of 3"},
      {"gemma", R"("hidden_act": "xielu")", "hidden_act 'xielu'"},
      {"gemma", R"("hidden_act": "relu", "hidden_activation": "gelu_pytorch_tanh")",
       "hidden_activation 'gelu_pytorch_tanh' beside another"},
      {"gemma2", R"("hidden_activation": "mish")", "hidden_activation 'mish'"},
      {"gemma3_text", R"("attn_logit_softcapping": 50.0)", "attn_logit_softcapping"},
      {"gemma3_text", R"("rope_parameters": {"rope_type": "linear", "factor": 8})",
       "rope_parameters that do not name layer types"},
      {"gemma3_text", R"("use_bidirectional_attention": true)", "use_bidirectional_attention"},
  };
  for (const auto& [type, extra, message] : cases) {
    const std::string text = answer(type, extra);
    EXPECT_EQ(text.rfind("unsupported: ", 0), 0u) << text;
    EXPECT_HAS(text, message);
  }
}

TEST(DenseFamilies, RefuseMalformedValues) {
  const std::vector<std::array<std::string, 3>> cases = {
      {"mistral", R"("sliding_window": -1)", "sliding_window must be positive or null"},
      {"mistral", R"("sliding_window": "x")", "sliding_window must be an integer"},
      {"qwen2", R"("layer_types": ["full_attention"])", "layer_types must list"},
      {"smollm3", R"("no_rope_layers": [1, 0])", "no_rope_layers must list"},
      {"smollm3", R"("no_rope_layers": [1, 0, 2, 1])", "zeros and ones"},
      {"smollm3", R"("no_rope_layer_interval": 0)", "no_rope_layer_interval"},
      {"gemma2", R"("query_pre_attn_scalar": 0)", "query_pre_attn_scalar must be positive"},
      {"gemma2", R"("final_logit_softcapping": -3)", "final_logit_softcapping must not be"},
      {"gemma3_text", R"("sliding_window_pattern": 0)", "sliding_window_pattern"},
      {"mistral", R"("sliding_window": 0)", "sliding_window must be positive or null"},
      {"qwen2", R"("layer_types": ["full_attention", "full_attention", "full_attention",
                                   "sliding_attention"])",
       "no sliding_window"},
      {"gemma2", R"("sliding_window": null)", "no sliding_window"},
      {"phi3", R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1]})",
       "long_factor must be a list"},
      {"phi3", R"("original_max_position_embeddings": 16, "rope_scaling": {"type": "su",
               "short_factor": [1, 1], "long_factor": [1]})",
       "1 factors for a rotary dimension of 4"},
      {"phi3", R"("original_max_position_embeddings": 16, "rope_scaling": {"type": "su",
               "short_factor": [1, 0], "long_factor": [1, 1]})",
       "short_factor must hold positive"},
      {"qwen2", R"("rope_scaling": {"type": "yarn", "factor": 2, "truncate": 1})", "truncate"},
      {"qwen2", R"("partial_rotary_factor": 1.5)", "partial_rotary_factor must lie in"},
  };
  for (const auto& [type, extra, message] : cases) {
    const std::string text = answer(type, extra);
    EXPECT_EQ(text.rfind("bad: ", 0), 0u) << text;
    EXPECT_HAS(text, message);
  }
}

// A key that is absent has the value of the family's class, null one that is derived.
TEST(DenseFamilies, DefaultsOfTheirClasses) {
  const auto heads = [](const std::string& type, const char* key_heads) {
    Checkpoint checkpoint = with_config(type, R"("num_attention_heads": 32, "hidden_size": 64)");
    checkpoint.config.erase("num_key_value_heads");
    if (key_heads) checkpoint.config.update(*parse_json(key_heads, "change"));
    const auto info = read_model_info(checkpoint);
    EXPECT_TRUE(info.ok()) << info.status().to_string();
    return info.ok() ? info->num_key_value_heads : 0;
  };
  EXPECT_EQ(heads("llama", nullptr), 32);
  EXPECT_EQ(heads("mistral", nullptr), 8);
  EXPECT_EQ(heads("mistral", R"({"num_key_value_heads": null})"), 32);
  EXPECT_EQ(heads("smollm3", nullptr), 4);
  EXPECT_EQ(heads("gemma", nullptr), 16);
  EXPECT_EQ(heads("gemma2", R"({"num_key_value_heads": 2.0})"), 2);
  const auto theta = [](const std::string& type, const std::string& extra) {
    return std::get<double>(read_model_info(with_config(type, extra))->config.at("rope_theta"));
  };
  EXPECT_EQ(theta("llama", ""), 1e4);
  EXPECT_EQ(theta("smollm3", ""), 2e6);
  EXPECT_EQ(theta("gemma3_text", ""), 1e6);
  EXPECT_EQ(theta("llama", R"("rope_theta": 7, "rope_parameters": {"rope_theta": 5})"), 5);
  EXPECT_EQ(read_model_info(with_config("qwen3", ""))->head_dim, 128);
  EXPECT_EQ(read_model_info(with_config("qwen2", ""))->head_dim, 4);
  EXPECT_TRUE(read_model_info(with_config("gemma", R"("head_dim": 4)"))->tie_word_embeddings);
  EXPECT_TRUE(read_model_info(with_config("smollm3", ""))->tie_word_embeddings);
  EXPECT_FALSE(read_model_info(with_config("mistral", ""))->tie_word_embeddings);
}

// Values by an independent evaluation of the published formula in double precision.
TEST(Rope, YarnBlendsByDimension) {
  RopeConfig rope;
  rope.type = "yarn";
  rope.rotary_dim = 16;
  const auto expect = [&](const std::vector<double>& wanted) {
    const std::vector<float> got = inverse_frequencies(rope);
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i] / wanted[i], 1, 2e-6) << i;
  };
  rope.theta = 150000, rope.factor = 32, rope.original_max_position_embeddings = 128;
  rope.truncate = false;
  expect({1, 0.117482921, 0.00215225563, 0.000357944587, 8.0687153e-05, 1.81883367e-05,
          4.09997848e-06, 9.2420895e-07});
  rope.theta = 10000, rope.factor = 40, rope.original_max_position_embeddings = 4096;
  rope.truncate = true;
  expect({1, 0.316227766, 0.1, 0.0239147248, 0.005125, 0.000849862121, 2.5e-05, 7.90569415e-06});
}

RopeConfig rope_of(const std::string& extra) {
  const Checkpoint checkpoint = with_config("llama", extra);
  ConfigReader config(checkpoint);
  RopeConfig rope = read_rope(config, {.head_dim = 4});
  ModelInfo read;
  EXPECT_TRUE(config.finish("fake", &read).ok()) << config.finish("fake", &read).to_string();
  return rope;
}

TEST(Rope, AttentionFactors) {
  EXPECT_NEAR(rope_of(R"("rope_scaling": {"type": "yarn", "factor": 4})").attention_factor,
              0.1 * std::log(4) + 1, 1e-12);
  // Both mscales cancel, as in DeepSeek-V2-Lite.
  EXPECT_EQ(rope_of(R"("rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707,
                       "mscale_all_dim": 0.707})")
                .attention_factor,
            1.0);
  EXPECT_EQ(rope_of(R"("rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": 1.5})")
                .attention_factor,
            1.5);
  EXPECT_NEAR(rope_of(R"("original_max_position_embeddings": 16, "rope_scaling": {"type": "su",
                         "short_factor": [1, 1], "long_factor": [2, 4]})")
                  .attention_factor,
              std::sqrt(1 + std::log(4) / std::log(16)), 1e-12);
  // Dynamic scaling starts beyond the positions of the model.
  EXPECT_EQ(inverse_frequencies(rope_of(R"("rope_scaling": {"type": "dynamic", "factor": 4})")),
            inverse_frequencies(rope_of("")));
}

// theta (factor N / max - (factor - 1))^(d / (d - 2)) for N positions.
TEST(Rope, DynamicScalingFollowsTheDeclaredLength) {
  const std::string extra = R"("rope_scaling": {"type": "dynamic", "factor": 4})";
  const RopeConfig original = rope_of(extra);
  for (const int64_t within : {0, 1, 64}) {
    RopeConfig rope = original;
    declare_length(64, within, &rope);
    EXPECT_EQ(rope.theta, original.theta) << within;
  }
  RopeConfig rope = original;
  declare_length(64, 128, &rope);
  EXPECT_NEAR(rope.theta, 10000 * 25.0, 1e-6);  // a rotary dimension of 4
  const auto positions = [&](int64_t context, const std::string& keys) {
    return read_model_info(with_config("llama", keys), {context})->max_position_embeddings;
  };
  EXPECT_EQ(positions(0, extra), 64);
  EXPECT_EQ(positions(100, extra), 100);
  EXPECT_EQ(positions(1000, extra), 256);
  EXPECT_EQ(positions(100, ""), 64);
}

// An odd part of a head rotates one dimension more, at the frequencies of the odd number.
TEST(Rope, OddPartsOfAHead) {
  const Checkpoint checkpoint = with_config("llama", R"("partial_rotary_factor": 0.4)");
  ConfigReader config(checkpoint);
  const RopeConfig rope = read_rope(config, {.head_dim = 8, .partial_rotary_factor = 1});
  EXPECT_EQ(rope.rotary_dim, 4);
  EXPECT_EQ(rope.frequency_dim, 3);
  EXPECT_NEAR(inverse_frequencies(rope)[1], std::pow(10000.0, -2.0 / 3), 1e-9);
}

// The parameters of the two styles and what stands beside them, in the order of transformers.
TEST(Rope, WhatWins) {
  const std::string longrope = R"("short_factor": [1, 1], "long_factor": [2, 2])";
  EXPECT_EQ(rope_of(R"("rope_scaling": {"rope_type": "linear", "factor": 2},
                       "rope_parameters": {"rope_type": "dynamic", "factor": 3})")
                .factor,
            2);
  EXPECT_EQ(
      rope_of(R"("rope_scaling": null, "rope_parameters": {"type": "linear", "factor": 3})").factor,
      3);
  EXPECT_EQ(rope_of(R"("rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2})").type,
            "linear");
  EXPECT_EQ(rope_of(R"("original_max_position_embeddings": 16, "rope_scaling": {"type": "longrope",
                       "original_max_position_embeddings": 32, )" +
                    longrope + "}")
                .original_max_position_embeddings,
            16);
  EXPECT_EQ(rope_of(R"("rope_scaling": {"type": "longrope", )" + longrope + "}")
                .original_max_position_embeddings,
            64);
  EXPECT_EQ(rope_of(R"("rope_scaling": {"type": "yarn", "factor": null,
                       "original_max_position_embeddings": 16})")
                .factor,
            4);
}

// ---- with the weights of the collection -------------------------------------------------------

class Collection : public testing::Test {
 protected:
  static Checkpoint open(const std::string& name) {
    auto out = open_checkpoint(kZoo + name);
    EXPECT_TRUE(out.ok()) << out.status().to_string();
    return std::move(*out);
  }
  static std::vector<float> logits(const Checkpoint& checkpoint, int64_t context = 0) {
    auto graph = build_graph(checkpoint, {context});
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    if (!graph.ok()) return {};
    const auto runner = reference_runner({std::move(*graph)}, {2, 0});
    std::vector<int32_t> ids;  // longer than the windows
    for (int32_t i = 0; i < 90; ++i) ids.push_back(3 + i * 37 % 1000);
    std::vector<float> out(ids.size() * static_cast<size_t>((*runner)->info().vocab_size));
    EXPECT_TRUE((*runner)->prefill(ids, LogitsOf::kAll, out).ok());
    return out;
  }
  static double distance(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double largest = a.size() == b.size() && !a.empty() ? 0 : HUGE_VAL;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
      largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
    return largest;
  }
};

TEST_F(Collection, Gemma3TakesRopeKeysByLayerType) {
  Checkpoint checkpoint = open("gemma3");
  const auto expected = logits(checkpoint);
  for (const char* key : {"rope_theta", "rope_local_base_freq", "rope_scaling"})
    checkpoint.config.erase(key);
  checkpoint.config["rope_parameters"] = *parse_json(
      R"({"full_attention": {"rope_theta": 1000000.0, "rope_type": "linear", "factor": 2.0},
          "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}})",
      "rope");
  EXPECT_EQ(logits(checkpoint), expected);
  checkpoint.config["rope_parameters"]["full_attention"]["factor"] = 3.0;
  EXPECT_GT(distance(logits(checkpoint), expected), 1e-3);
}

TEST_F(Collection, SlidingLayersFromEitherStyle) {
  for (const char* name : {"gemma2", "gemma3"}) {
    Checkpoint checkpoint = open(name);
    const auto expected = logits(checkpoint);
    checkpoint.config.erase("layer_types");
    EXPECT_EQ(logits(checkpoint), expected) << name;
    checkpoint.config["sliding_window"] = 512;
    EXPECT_GT(distance(logits(checkpoint), expected), 1e-3) << name;
  }
  Checkpoint qwen = open("qwen2");
  const auto expected = logits(qwen);
  qwen.config.erase("layer_types");
  qwen.config["sliding_window"] = 8;
  qwen.config["max_window_layers"] = 2;
  EXPECT_EQ(logits(qwen), expected);
  qwen.config["use_sliding_window"] = true;
  const auto windowed = logits(qwen);
  EXPECT_GT(distance(windowed, expected), 1e-3);
  qwen.config["layer_types"] = {"full_attention", "full_attention", "sliding_attention",
                                "sliding_attention"};
  EXPECT_EQ(logits(qwen), windowed);
}

TEST_F(Collection, Gemma3WithImagesIsItsLanguageModel) {
  Checkpoint checkpoint = open("gemma3");
  const auto expected = logits(checkpoint);
  for (const char* prefix : {"language_model.", "model.language_model."}) {
    Checkpoint whole = checkpoint;
    whole.config = {{"model_type", "gemma3"}, {"text_config", checkpoint.config}};
    for (CheckpointTensor& tensor : whole.tensors)
      tensor.name = prefix + (prefix[0] == 'm' ? tensor.name.substr(6) : tensor.name);
    whole.tensors.push_back(whole.tensors[0]);
    whole.tensors.back().name = "vision_tower.vision_model.head.bias";
    EXPECT_EQ(logits(whole), expected) << prefix;
  }
}

TEST_F(Collection, SmolLm3LayersWithoutPositions) {
  Checkpoint checkpoint = open("smollm3");
  const auto expected = logits(checkpoint);
  checkpoint.config.erase("no_rope_layers");
  EXPECT_EQ(logits(checkpoint), expected);
  checkpoint.config["no_rope_layers"] = {1, 1, 1, 1};
  EXPECT_GT(distance(logits(checkpoint), expected), 1e-3);
}

TEST_F(Collection, LongropeTakesOneSetByTheDeclaredLength) {
  const Checkpoint checkpoint = open("phi3-longrope");  // original context 128, positions 1024
  const auto small = logits(checkpoint, 128), large = logits(checkpoint, 129);
  EXPECT_GT(distance(small, large), 1e-3);
  EXPECT_EQ(logits(checkpoint), large);
  Checkpoint older = checkpoint;  // the style of the published models
  Json scaling = older.config["rope_parameters"];
  older.config.erase("rope_parameters");
  older.config["rope_theta"] = 10000.0;
  older.config["partial_rotary_factor"] = 0.75;
  older.config["rope_scaling"] = {{"type", "longrope"},
                                  {"short_factor", scaling["short_factor"]},
                                  {"long_factor", scaling["long_factor"]}};
  EXPECT_EQ(logits(older, 128), small);
  EXPECT_EQ(logits(older, 300), large);
}

// ---- GGUF
// ---------------------------------------------------------------------------------------------------

std::vector<float> decoded(const CheckpointTensor& tensor) {
  const ConstantDataPtr data = stored_constant(tensor);
  std::vector<float> out(static_cast<size_t>(data->rows() * data->columns()));
  EXPECT_TRUE(data->read_f32(0, data->rows(), out.data()).ok());
  return out;
}

void add_tensor(Checkpoint* to, const std::string& name, Shape shape, std::vector<float> values) {
  std::vector<std::byte> bytes(values.size() * 4);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  CheckpointTensor tensor;
  tensor.name = name;
  tensor.shape = std::move(shape);
  tensor.encoding = Encoding::plain(EncodingKind::kF32);
  tensor.bytes = bytes.size();
  tensor.source = memory_source(std::move(bytes), name);
  to->tensors.push_back(std::move(tensor));
}

// Rows (i, i + d/2) of each head become the pair (2i, 2i + 1).
std::vector<float> paired(const std::vector<float>& in, size_t heads, size_t columns) {
  std::vector<float> out(in.size());
  const size_t dim = in.size() / columns / heads;
  for (size_t h = 0; h < heads; ++h)
    for (size_t r = 0; r < dim; ++r)
      std::copy_n(in.begin() + static_cast<ptrdiff_t>((h * dim + r) * columns), columns,
                  out.begin() + static_cast<ptrdiff_t>(
                                    (h * dim + r % (dim / 2) * 2 + r / (dim / 2)) * columns));
  return out;
}

Checkpoint gguf_twin(const Checkpoint& original, const std::string& arch, const std::string& more) {
  const auto graph = build_graph(original);
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  Checkpoint out;
  out.format = "gguf";
  out.path = "twin";
  const ModelInfo& info = graph->info;
  out.gguf = {{"general.architecture", arch}};
  const auto set = [&](const std::string& key, Json value) { out.gguf[arch + "." + key] = value; };
  set("embedding_length", info.hidden_size);
  set("feed_forward_length", info.intermediate_size);
  set("block_count", info.num_hidden_layers);
  set("attention.head_count", info.num_attention_heads);
  set("attention.head_count_kv", info.num_key_value_heads);
  set("attention.key_length", info.head_dim);
  set("attention.value_length", info.head_dim);
  set("context_length", info.max_position_embeddings);
  set("attention.layer_norm_rms_epsilon", original.config["rms_norm_eps"]);
  const Json extra = *parse_json("{" + more + "}", "metadata");
  for (const auto& [key, value] : extra.items()) set(key, value);
  std::set<std::string> done;
  for (const Constant& c : graph->constants) {
    if (c.gguf_name.empty() || !done.insert(c.gguf_name).second) continue;
    const CheckpointTensor* stored = original.find(c.hf_name);
    if (!stored) continue;
    std::vector<float> values = decoded(*stored);
    const bool q = c.gguf_name.find("attn_q.") != std::string::npos,
               k = c.gguf_name.find("attn_k.") != std::string::npos;
    if ((arch == "llama" || arch == "smollm3") && (q || k))
      values = paired(values,
                      static_cast<size_t>(q ? info.num_attention_heads : info.num_key_value_heads),
                      static_cast<size_t>(info.hidden_size));
    if (arch.rfind("gemma", 0) == 0 && c.role == Constant::Role::kNorm)
      for (float& v : values) v += 1;
    add_tensor(&out, c.gguf_name, stored->shape, std::move(values));
  }
  return out;
}

TEST_F(Collection, GgufTwinsGiveTheSameLogits) {
  const std::vector<std::array<std::string, 3>> cases = {
      {"qwen2", "qwen2", ""},
      {"qwen3", "qwen3", ""},
      {"smollm3", "smollm3", ""},
      {"phi3", "phi3", R"("attention.sliding_window": 64, "rope.dimension_count": 16)"},
      {"gemma", "gemma", ""},
      {"gemma2", "gemma2", R"("attention.sliding_window": 64, "attn_logit_softcapping": 50.0)"},
      {"gemma3", "gemma3", R"("attention.sliding_window": 64, "rope.freq_base": 1000000.0,
            "rope.scaling.type": "linear", "rope.scaling.factor": 2.0,
            "attention.sliding_window_pattern": 3)"},
      {"gemma3", "gemma3", R"("attention.sliding_window": 64, "rope.freq_base": 1000000.0,
            "rope.scaling.type": "linear", "rope.scaling.factor": 2.0,
            "attention.sliding_window_pattern": [true, true, false, true, true, false])"},
  };
  for (const auto& [name, arch, more] : cases) {
    Checkpoint original = open(name);
    // GGUF has no key for it: queries are scaled by the size of a head.
    if (name == "gemma2") original.config["query_pre_attn_scalar"] = 16;
    EXPECT_LT(distance(logits(gguf_twin(original, arch, more)), logits(original)), 1e-4) << name;
  }
}

TEST_F(Collection, GgufTwinOfLongrope) {
  const Checkpoint original = open("phi3-longrope");
  Checkpoint twin = gguf_twin(original, "phi3",
                              R"("rope.dimension_count": 12,
                                 "rope.scaling.original_context_length": 128,
                                 "rope.scaling.attn_factor": 1.1952286093343936)");
  for (const char* which : {"short", "long"}) {
    const Json& list = original.config["rope_parameters"][std::string(which) + "_factor"];
    add_tensor(&twin, std::string("rope_factors_") + which + ".weight", {6},
               list.get<std::vector<float>>());
  }
  for (const int64_t context : {128, 300})
    EXPECT_LT(distance(logits(twin, context), logits(original, context)), 1e-4) << context;
  twin.tensors.pop_back();
  add_tensor(&twin, "rope_factors_long.weight", {5}, {1, 1, 1, 1, 1});
  EXPECT_HAS(build_graph(twin).status().to_string(), "rope_factors_long.weight");
}

}  // namespace
}  // namespace pome
