#include "models/deepseek_config.h"

#include <algorithm>
#include <cmath>

#include "models/mixture.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults2 = R"({
  "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
  "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-6, "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536,
  "n_routed_experts": 64, "n_shared_experts": 2, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "routed_scaling_factor": 1.0, "topk_method": "greedy", "v_head_dim": 128,
  "moe_intermediate_size": 1407})";
constexpr std::string_view kClassDefaults3 = R"({
  "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
  "num_attention_heads": 128, "hidden_act": "silu", "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-6, "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536,
  "n_routed_experts": 256, "n_shared_experts": 1, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
  "norm_topk_prob": true, "v_head_dim": 128, "moe_intermediate_size": 2048,
  "num_nextn_predict_layers": 1})";

void read_router(ConfigReader& config, DeepseekConfig* out) {
  RouterConfig& router = out->router;
  router.scale = config.positive("routed_scaling_factor", "expert_weights_scale",
                                 config.is_gguf() ? std::optional(1.0) : std::nullopt);
  router.normalize = config.maybe_bool("norm_topk_prob", "expert_weights_norm").value_or(false);
  router.groups = config.maybe_int("n_group", "expert_group_count").value_or(1);
  router.groups_per_token =
      config.maybe_int("topk_group", "expert_group_used_count").value_or(router.groups);
  if (!config.is_gguf() && !out->sigmoid) {
    const std::string method = config.maybe_string("topk_method", "").value_or("greedy");
    if (method == "greedy") {
      router.groups = 1;
    } else if (method != "group_limited_greedy") {
      config.unsupported("topk_method '" + escape_for_terminal(method, 64) + "'");
    }
    if (router.normalize)
      config.unsupported("norm_topk_prob of deepseek_v2, whose implementations disagree");
  }
  router.groups = std::max<int64_t>(router.groups, 1);
  if (router.groups == 1) router.groups_per_token = 1;
  const int64_t size = router.experts / router.groups;
  if (router.experts % router.groups != 0 || router.groups_per_token < 1 ||
      router.groups_per_token > router.groups ||
      router.groups_per_token * size < router.experts_per_token) {
    config.complain(Refusal::kRange, "n_group " + std::to_string(router.groups) +
                                         " and topk_group " +
                                         std::to_string(router.groups_per_token) + " do not suit " +
                                         std::to_string(router.experts) + " experts, " +
                                         std::to_string(router.experts_per_token) + " per token");
    router.groups = router.groups_per_token = 1;
  }
}

void read_head_sizes(ConfigReader& config, DeepseekConfig* out) {
  out->q_rank = config.maybe_int("q_lora_rank", "attention.q_lora_rank").value_or(0);
  out->kv_rank = config.integer("kv_lora_rank", "attention.kv_lora_rank", 1, 1 << 20);
  out->rope_dim = config.integer("qk_rope_head_dim", "rope.dimension_count", 2, 4096);
  if (config.is_gguf()) {
    // Files that keep the latent apart say the head sizes under names of their own.
    const bool apart = config.maybe_int("", "attention.key_length_mla").has_value();
    const std::string suffix = apart ? "_mla" : "";
    out->nope_dim = config.integer("", "attention.key_length" + suffix, 1, 8192) - out->rope_dim;
    out->value_dim = config.integer("", "attention.value_length" + suffix, 1, 4096);
    if (out->nope_dim < 1) {
      config.complain(Refusal::kRange, "attention.key_length is not more than the rotary part");
      out->nope_dim = 1;
    }
  } else {
    out->nope_dim = config.integer("qk_nope_head_dim", "", 1, 4096);
    out->value_dim = config.integer("v_head_dim", "", 1, 4096);
  }
  if (out->q_rank < 0 || out->q_rank > 1 << 20) {
    config.complain(Refusal::kRange, "q_lora_rank is out of range");
    out->q_rank = 0;
  }
  out->info.head_dim = out->qk_dim();
  out->info.num_key_value_heads = out->info.num_attention_heads;
}

void read_rotation(ConfigReader& config, DeepseekConfig* out) {
  RopeConfig& rope = out->rope;
  rope = read_rope(config, {.head_dim = out->rope_dim});
  out->rope_style = RopeStyle::kInterleaved;
  if (!config.maybe_bool("rope_interleave", "").value_or(true)) {
    if (!out->sigmoid) config.unsupported("rope_interleave false in a deepseek_v2 model");
    out->rope_style = RopeStyle::kHalves;
  }
  if (config.is_gguf() && rope.type == "yarn") {
    // yarn_log_multiplier is 0.1 mscale_all_dim; cos and sin stay as they are then.
    if (const auto log = config.maybe_number("", "rope.scaling.yarn_log_multiplier")) {
      rope.mscale_all_dim = 10 * *log;
      rope.attention_factor = 1;
    }
  }
  const double mscale = rope.type == "yarn" && rope.mscale_all_dim != 0
                            ? yarn_mscale(rope.factor, rope.mscale_all_dim)
                            : 1;
  out->attention_scale = mscale * mscale / std::sqrt(static_cast<double>(out->qk_dim()));
  note_rope(out);
}

// The kind of router, and layers that guess further tokens.
void read_generation(ConfigReader& config, const Checkpoint& checkpoint, bool third,
                     DeepseekConfig* out) {
  if (config.is_gguf()) {
    // Files from a configuration without scoring_func do not name it; the tensor that only a
    // sigmoid router has tells.
    const bool corrected =
        std::any_of(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                    [](const auto& tensor) { return tensor.name.ends_with(".exp_probs_b.bias"); });
    const int64_t gating = config.maybe_int("", "expert_gating_func").value_or(corrected ? 2 : 1);
    if (gating != 1 && gating != 2)
      config.unsupported("expert_gating_func " + std::to_string(gating));
    out->sigmoid = gating == 2;
    if (config.maybe_int("", "nextn_predict_layers").value_or(0) > 0)
      config.unsupported("layers that predict further tokens in GGUF");
    return;
  }
  out->sigmoid = third;
  const std::string scores = third ? "sigmoid" : "softmax";
  if (config.maybe_string("scoring_func", "").value_or(scores) != scores)
    config.unsupported("another scoring_func than " + scores);
  if (third && config.maybe_string("topk_method", "").value_or("noaux_tc") != "noaux_tc")
    config.unsupported("another topk_method than noaux_tc in a deepseek_v3 model");
  const int64_t predicting = config.maybe_int("num_nextn_predict_layers", "").value_or(0);
  if (predicting < 0 || predicting > 64)
    config.complain(Refusal::kRange, "num_nextn_predict_layers is out of range");
  for (int64_t i = 0; i < std::min<int64_t>(predicting, 64); ++i)
    out->ignored_prefixes.push_back(out->names.layers +
                                    std::to_string(out->info.num_hidden_layers + i) + ".");
}

bool is_third(const Checkpoint& checkpoint) {
  return checkpoint.config.is_object() &&
         checkpoint.config.value("model_type", "") == "deepseek_v3";
}

}  // namespace

Result<DeepseekConfig> read_deepseek(const Checkpoint& checkpoint) {
  const bool third = is_third(checkpoint);
  ConfigReader config(checkpoint, third ? kClassDefaults3 : kClassDefaults2);
  DecoderKeys keys{.family = "deepseek", .latent_heads = true};
  keys.wide_by_default = config.is_gguf();  // its files may say the width of experts only
  DeepseekConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  read_mixture(config, {.experts = "n_routed_experts"}, &out);
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  out.mlp_bias = config.maybe_bool("mlp_bias", "").value_or(false);
  if (third) refuse_true(config, "mlp_bias");
  read_generation(config, checkpoint, third, &out);
  read_head_sizes(config, &out);
  read_rotation(config, &out);
  read_router(config, &out);
  out.dense_layers =
      config.maybe_int("first_k_dense_replace", "leading_dense_block_count").value_or(0);
  if (config.maybe_int("moe_layer_freq", "").value_or(1) != 1)
    config.unsupported("moe_layer_freq other than 1");
  const int64_t shared = config.maybe_int("n_shared_experts", "expert_shared_count").value_or(0);
  if (shared < 0 || shared > 1 << 12)
    config.complain(Refusal::kRange, "n_shared_experts is out of range");
  out.shared_width = std::clamp<int64_t>(shared, 0, 1 << 12) * out.expert_width;
  out.info.config["kv_lora_rank"] = out.kv_rank;
  auto& values = out.info.gguf.values;
  // Files that keep the latent apart have one head of keys, and the sizes of heads elsewhere.
  const bool apart = config.maybe_int("", "attention.key_length_mla").has_value();
  values["attention.head_count_kv"] = apart ? int64_t{1} : out.info.num_attention_heads;
  values["attention.key_length"] = apart ? out.kv_rank + out.rope_dim : out.qk_dim();
  values["attention.value_length"] = apart ? out.kv_rank : out.value_dim;
  values["expert_gating_func"] = int64_t{out.sigmoid ? 2 : 1};
  values["expert_weights_scale"] = out.router.scale;
  values["expert_weights_norm"] = out.router.normalize;
  values["expert_group_count"] = out.router.groups;
  values["expert_group_used_count"] = out.router.groups_per_token;
  if (out.rope_style != RopeStyle::kInterleaved)
    out.info.gguf.obstacles.push_back("rope_interleave false");
  out.info.config["q_lora_rank"] = out.q_rank;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

}  // namespace pome
