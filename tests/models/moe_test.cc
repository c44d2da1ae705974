#include "models/moe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <utility>

#include "interp/graph_eval.h"
#include "models/models.h"
#include "tensor/half.h"

namespace pome {
namespace {

std::vector<float> noise(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

// The mixing weights that a router gives to rows of logits.
std::vector<float> route(const RouterConfig& config, bool sigmoid, const std::vector<float>& logits,
                         const std::vector<float>& correction) {
  const int64_t tokens = static_cast<int64_t>(logits.size()) / config.experts;
  ModelInfo info;
  info.vocab_size = 4;
  info.max_position_embeddings = 8;
  GraphBuilder b(info);
  const ValueId in =
      b.input("logits", {DType::kF32, {Symbol::kBatch, Symbol::kTokens, config.experts}});
  b.token_ids();
  const ValueId out =
      sigmoid
          ? sigmoid_router(b, in, correction.empty() ? kNoValue : b.vector("c", correction), config)
          : softmax_router(b, in, config);
  const std::string name = "mix";
  auto graph = b.finish(b.binary(BinaryKind::kAdd, out, b.scalar(0), name));
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  if (!graph.ok()) return {};
  auto result = evaluate(*graph,
                         {{"logits", Tensor::from_f32({1, tokens, config.experts}, logits)},
                          {"input_ids", Tensor::zeros(DType::kI32, {1, tokens})}},
                         {name}, nullptr);
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  if (!result.ok()) return {};
  const auto values = (*result)[0].f32();
  return {values.begin(), values.end()};
}

// Indices of the k largest, ties by the lower index.
std::vector<size_t> largest(const std::vector<double>& values, size_t k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  order.resize(k);
  return order;
}

std::vector<double> expected_row(const RouterConfig& c, bool sigmoid, const float* logits,
                                 const std::vector<float>& correction) {
  const auto n = static_cast<size_t>(c.experts);
  std::vector<double> scores(n), ranks(n), weights(n, 0);
  double sum = 0;
  for (size_t e = 0; e < n; ++e) sum += std::exp(logits[e]);
  for (size_t e = 0; e < n; ++e) {
    scores[e] = sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e]) / sum;
    ranks[e] = scores[e] + (correction.empty() ? 0 : correction[e]);
  }
  if (c.groups > 1) {
    const size_t size = n / static_cast<size_t>(c.groups);
    std::vector<double> groups;
    for (size_t g = 0; g < n; g += size) {
      std::vector<double> of(ranks.begin() + static_cast<int64_t>(g),
                             ranks.begin() + static_cast<int64_t>(g + size));
      std::sort(of.rbegin(), of.rend());
      groups.push_back(sigmoid && size > 1 ? of[0] + of[1] : of[0]);
    }
    std::vector<bool> open(groups.size(), false);
    for (const size_t g : largest(groups, static_cast<size_t>(c.groups_per_token))) open[g] = true;
    for (size_t e = 0; e < n; ++e)
      if (!open[e / size]) ranks[e] = -INFINITY;
  }
  double total = 0;
  for (const size_t e : largest(ranks, static_cast<size_t>(c.experts_per_token)))
    total += weights[e] = scores[e];
  for (double& w : weights) w *= c.scale / (c.normalize ? total : 1);
  return weights;
}

void check_router(const RouterConfig& config, bool sigmoid, bool corrected = false) {
  const auto n = static_cast<size_t>(config.experts);
  std::vector<float> logits = noise(17 * n, 3);
  std::fill(logits.begin(), logits.begin() + static_cast<int64_t>(n), 0.5f);  // all tie
  const std::vector<float> correction = corrected ? noise(n, 4) : std::vector<float>();
  const std::vector<float> got = route(config, sigmoid, logits, correction);
  ASSERT_EQ(got.size(), logits.size());
  for (size_t t = 0; t < 17; ++t) {
    const auto expected = expected_row(config, sigmoid, logits.data() + t * n, correction);
    for (size_t e = 0; e < n; ++e) {
      EXPECT_NEAR(got[t * n + e], expected[e], 1e-6) << t << " " << e;
      EXPECT_EQ(got[t * n + e] == 0, expected[e] == 0) << t << " " << e;
    }
  }
}

TEST(Router, SoftmaxThenChoose) { check_router({6, 2}, false); }
TEST(Router, SoftmaxOverTheChosen) { check_router({7, 3, 1, 1, true}, false); }
TEST(Router, SoftmaxScaled) { check_router({5, 5, 1, 1, false, 2.5}, false); }
TEST(Router, SoftmaxInGroups) { check_router({12, 3, 4, 2, false, 16}, false); }
TEST(Router, Sigmoid) { check_router({8, 2, 1, 1, true, 1.5}, true); }
TEST(Router, SigmoidWithCorrection) { check_router({8, 3, 1, 1, false}, true, true); }
TEST(Router, SigmoidInGroups) { check_router({12, 4, 3, 2, true, 2.5}, true, true); }
TEST(Router, GroupsOfOneExpert) { check_router({4, 2, 4, 3, true}, true, true); }

TEST(Router, FarLogitsDoNotDivideByZero) {
  const std::vector<float> logits = {-200, -210, -220, -230};
  for (const float w : route({4, 2, 1, 1, true}, true, logits, {})) EXPECT_TRUE(std::isfinite(w));
  const auto softmax = route({4, 1, 1, 1, true}, false, {90, -90, 89, 0}, {});
  EXPECT_EQ(softmax, (std::vector<float>{1, 0, 0, 0}));
}

// Bytes as a stored tensor.
ConstantDataPtr bytes_constant(Shape shape, std::vector<std::byte> bytes, EncodingKind kind) {
  CheckpointTensor tensor;
  tensor.name = "t";
  tensor.shape = std::move(shape);
  tensor.encoding = Encoding::plain(kind);
  tensor.bytes = bytes.size();
  tensor.source = memory_source(std::move(bytes), "t");
  return stored_constant(tensor);
}

// All scales but the one that is no number, each with all 16 codes in both halves of bytes: those
// of exponents 0 and 1 decode to subnormal values, the largest beyond what binary32 holds.
TEST(Mxfp4, RepackedBlocksDecodeToWhatTheFormatSays) {
  constexpr int64_t kExperts = 3, kOutputs = 86, kInputs = 64, kGroups = 2;
  static constexpr float kValues[] = {0,  0.5f,  1,  1.5f,  2,  3,  4,  6,
                                      -0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  constexpr size_t kCount = kExperts * kOutputs * kGroups;
  std::vector<std::byte> blocks(kCount * 16), scales(kCount);
  const auto code_at = [](size_t group, size_t k) { return (k + k / 16 + group * 5) % 16; };
  for (size_t group = 0; group < kCount; ++group) {
    scales[group] = static_cast<std::byte>(group * 7 % 255);
    for (size_t j = 0; j < 16; ++j)
      blocks[group * 16 + j] =
          static_cast<std::byte>(code_at(group, 2 * j) | code_at(group, 2 * j + 1) << 4);
  }
  const auto stored_blocks =
      bytes_constant({kExperts, kOutputs, kGroups, 16}, blocks, EncodingKind::kI8);
  const auto stored_scales =
      bytes_constant({kExperts, kOutputs, kGroups}, scales, EncodingKind::kI8);
  std::set<std::pair<int, size_t>> seen;
  for (const int64_t first : {0, 1}) {
    const auto data =
        mxfp4_experts(stored_blocks, stored_scales, first, 2, {kExperts, kOutputs / 2, kInputs});
    ASSERT_EQ(data->encoding().kind, EncodingKind::kMXFP4);
    std::vector<float> got(static_cast<size_t>(data->rows() * kInputs));
    ASSERT_TRUE(data->read_f32(0, 4, got.data()).ok());
    ASSERT_TRUE(data->read_f32(4, data->rows() - 4, got.data() + 4 * kInputs).ok());
    for (int64_t r = 0; r < data->rows(); ++r) {
      const int64_t half = kOutputs / 2, from = r / half * kOutputs + first + r % half * 2;
      for (int64_t k = 0; k < kInputs; ++k) {
        const auto group = static_cast<size_t>(from * kGroups + k / 32);
        const size_t code = code_at(group, static_cast<size_t>(k % 32));
        const int scale = std::to_integer<int>(scales[group]);
        seen.insert({scale, code});
        ASSERT_EQ(got[static_cast<size_t>(r * kInputs + k)], std::ldexp(kValues[code], scale - 127))
            << scale << " " << code;
      }
    }
  }
  EXPECT_EQ(seen.size(), 255u * 16);
}

TEST(Experts, StoredInputByOutputAreTransposedInTheirOwnType) {
  constexpr int64_t kExperts = 2, kInputs = 3, kStored = 8;
  std::vector<std::byte> bytes(kExperts * kInputs * kStored * 2);
  for (size_t i = 0; i < bytes.size() / 2; ++i) {
    const uint16_t half = f32_to_bf16(static_cast<float>(i));
    std::memcpy(bytes.data() + 2 * i, &half, 2);
  }
  const auto stored = bytes_constant({kExperts, kInputs, kStored}, bytes, EncodingKind::kBF16);
  const auto data = transpose_experts(1, 2, {kExperts, kStored / 2, kInputs})(stored);
  EXPECT_EQ(data->encoding().kind, EncodingKind::kBF16);
  std::vector<float> got(static_cast<size_t>(data->rows() * kInputs));
  // A tile that crosses from one expert to the next.
  ASSERT_TRUE(data->read_f32(0, 3, got.data()).ok());
  ASSERT_TRUE(data->read_f32(3, 5, got.data() + 3 * kInputs).ok());
  for (int64_t e = 0; e < kExperts; ++e)
    for (int64_t n = 0; n < kStored / 2; ++n)
      for (int64_t k = 0; k < kInputs; ++k)
        EXPECT_EQ(got[static_cast<size_t>((e * 4 + n) * kInputs + k)],
                  static_cast<float>((e * kInputs + k) * kStored + 1 + 2 * n));
}

TEST(Experts, RowsAndColumnsOfFusedTensors) {
  std::vector<float> values(2 * 6 * 3);
  std::iota(values.begin(), values.end(), 0.0f);
  const auto rows =
      take_expert_rows(3, 1, {2, 3, 3})(inline_constant(Tensor::from_f32({2, 6, 3}, values)));
  std::vector<float> got(18);
  ASSERT_TRUE(rows->read_f32(0, 6, got.data()).ok());
  EXPECT_EQ(got[0], 9);
  EXPECT_EQ(got[9], 27);
  const auto columns =
      take_expert_columns(1, 2, {6, 3})(inline_constant(Tensor::from_f32({6, 6}, values)));
  ASSERT_TRUE(columns->read_f32(0, 6, got.data()).ok());
  EXPECT_EQ(got[0], 1);
  EXPECT_EQ(got[2], 5);
  EXPECT_EQ(got[3], 7);
}

TEST(Experts, MissingScalesFailWhenTheyAreRead) {
  const auto blocks = bytes_constant({1, 2, 1, 16}, std::vector<std::byte>(32), EncodingKind::kI8);
  const auto data = mxfp4_experts(blocks, nullptr, 0, 1, {1, 2, 32});
  std::vector<float> out(64);
  EXPECT_EQ(data->read_f32(0, 2, out.data()).code(), StatusCode::kBadInput);
}

TEST(Experts, OneMissingPartStandsForAll) {
  Checkpoint checkpoint;
  checkpoint.format = "safetensors";
  GraphBuilder b(ModelInfo{});
  WeightSet weights(checkpoint, b);
  weights.get_stack({"e", "e.*", "", {1 << 16, 2, 3}},
                    [](int64_t e) { return "e." + std::to_string(e); });
  const std::string text = weights.finish().to_string();
  EXPECT_NE(text.find("1 tensor(s)"), std::string::npos) << text;
  EXPECT_NE(text.find("missing: e.0 [2, 3]"), std::string::npos) << text;
}

// ---- configurations

std::string refusal(const std::string& config, StatusCode* code = nullptr) {
  Checkpoint checkpoint;
  checkpoint.format = "safetensors";
  checkpoint.path = "fake";
  checkpoint.config = *parse_json(config, "config.json");
  const auto info = read_model_info(checkpoint);
  if (info.ok()) return "ok";
  if (code) *code = info.status().code();
  return info.status().to_string();
}
std::string with(const std::string& type, const std::string& more) {
  return R"({"vocab_size": 10, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "model_type": ")" +
         type + "\", " + more + "}";
}
void expect_refused(const std::string& type, const std::string& more, const std::string& part,
                    StatusCode expected = StatusCode::kUnsupported) {
  StatusCode code = StatusCode::kOk;
  const std::string text = refusal(with(type, more), &code);
  EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_EQ(code, expected) << text;
}
const std::string kDeepseek =
    R"("n_routed_experts": 8, "moe_intermediate_size": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
       "qk_rope_head_dim": 8, "v_head_dim": 8, "q_lora_rank": null)";

TEST(MoeConfig, Accepts) {
  EXPECT_EQ(refusal(with("mixtral", R"("num_local_experts": 4)")), "ok");
  EXPECT_EQ(refusal(with("qwen3_moe", R"("num_experts": 4, "moe_intermediate_size": 8)")), "ok");
  EXPECT_EQ(refusal(with("gpt_oss", R"("num_local_experts": 4, "sliding_window": 8)")), "ok");
  EXPECT_EQ(refusal(with("deepseek_v3", kDeepseek)), "ok");
  EXPECT_EQ(refusal(with("deepseek_v2", kDeepseek)), "ok");
  EXPECT_EQ(refusal(with("latent_kv", R"("num_experts": 4, "kv_latent_dim": 8,
                                         "moe_intermediate_size": 8)")),
            "ok");
}

TEST(MoeConfig, RefusesByName) {
  const StatusCode bad = StatusCode::kBadInput;
  expect_refused("mixtral",
                 R"("num_local_experts": 4, "quantization_config": {"quant_method": "awq"})",
                 "quantization_config");
  expect_refused("mixtral", R"("num_local_experts": 1)", "num_experts_per_tok", bad);
  expect_refused("mixtral", R"("num_local_experts": null)", "num_local_experts", bad);
  expect_refused("mixtral", R"("hidden_act": "relu2")", "hidden_act");
  expect_refused("mixtral", R"("sliding_window": 0)", "sliding_window must be positive", bad);
  expect_refused("qwen3_moe",
                 R"("num_experts": 4, "moe_intermediate_size": 8, "use_sliding_window": true,
                    "layer_types": ["full_attention", "sliding_attention"])",
                 "layer_types that differ from sliding_window");
  expect_refused("qwen2_moe",
                 R"("num_experts": 4, "layer_types": ["full_attention", "sliding_attention"])",
                 "no sliding_window", bad);
  expect_refused("qwen3_moe",
                 R"("num_experts": 4, "moe_intermediate_size": 8, "mlp_only_layers": ["a"])",
                 "mlp_only_layers", bad);
  expect_refused("qwen3_moe",
                 R"("num_experts": 4, "moe_intermediate_size": 8, "decoder_sparse_step": 0)",
                 "decoder_sparse_step", bad);
  expect_refused(
      "gpt_oss",
      R"("num_local_experts": 4, "sliding_window": 8, "layer_types": ["full_attention"])",
      "layer_types", bad);
  expect_refused(
      "gpt_oss",
      R"("num_local_experts": 4, "sliding_window": 8, "layer_types": ["linear", "linear"])",
      "linear");
  expect_refused("deepseek_v2", kDeepseek + R"(, "topk_method": "dice")", "topk_method");
  expect_refused("deepseek_v2", kDeepseek + R"(, "rope_interleave": false)", "rope_interleave");
  expect_refused("deepseek_v2", kDeepseek + R"(, "norm_topk_prob": true)", "norm_topk_prob");
  expect_refused("deepseek_v3", kDeepseek + R"(, "n_group": 3, "topk_group": 1)", "n_group", bad);
  expect_refused("deepseek_v3", kDeepseek + R"(, "scoring_func": "softmax")", "scoring_func");
  expect_refused("deepseek_v3", kDeepseek + R"(, "moe_layer_freq": 2)", "moe_layer_freq");
  expect_refused("latent_kv",
                 R"("num_experts": 4, "kv_latent_dim": 8, "moe_intermediate_size": 8,
                    "tie_word_embeddings": true)",
                 "tied");
}

// The tensor that only a sigmoid router has tells it where the metadata does not.
TEST(MoeConfig, GgufRouterWithoutAName) {
  Checkpoint file;
  file.format = "gguf";
  file.path = "fake";
  file.gguf = {{"general.architecture", "deepseek2"}};
  const auto set = [&](const std::string& key, Json value) {
    file.gguf["deepseek2." + key] = value;
  };
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, int>>{{"block_count", 1},
                                                {"context_length", 64},
                                                {"embedding_length", 32},
                                                {"feed_forward_length", 32},
                                                {"attention.head_count", 2},
                                                {"attention.head_count_kv", 1},
                                                {"attention.key_length_mla", 16},
                                                {"attention.value_length_mla", 8},
                                                {"attention.kv_lora_rank", 16},
                                                {"rope.dimension_count", 8},
                                                {"expert_count", 8},
                                                {"expert_used_count", 2},
                                                {"expert_feed_forward_length", 8}})
    set(key, value);
  set("attention.layer_norm_rms_epsilon", 1e-6);
  CheckpointTensor tensor;
  tensor.name = "blk.0.exp_probs_b.bias";
  tensor.shape = {8};
  tensor.encoding = Encoding::plain(EncodingKind::kF32);
  file.tensors.push_back(tensor);
  const std::string unused = "unused: blk.0.exp_probs_b.bias";
  const std::string text = build_graph(file).status().to_string();
  EXPECT_NE(text.find("missing: blk.0.ffn_gate_inp.weight [8, 32]"), std::string::npos) << text;
  EXPECT_EQ(text.find(unused), std::string::npos) << text;
  set("expert_gating_func", 1);
  EXPECT_NE(build_graph(file).status().to_string().find(unused), std::string::npos);
}

}  // namespace
}  // namespace pome
