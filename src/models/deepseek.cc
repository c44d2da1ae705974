// DeepSeek V2 and V3 (arXiv 2405.04434, 2412.19437): multi-head latent attention, a few dense
// layers before the sparse ones, experts chosen within groups beside shared ones. Keys and values
// are expanded from their latent before they are cached.
#include <algorithm>
#include <cmath>

#include "models/family.h"
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

struct DeepseekConfig : DecoderConfig {
  int64_t q_rank = 0, kv_rank = 0;  // q_rank 0: q has one projection
  int64_t nope_dim = 0, rope_dim = 0, value_dim = 0;
  double attention_scale = 1;
  int64_t dense_layers = 0, shared_width = 0;
  bool sigmoid = false;
  int64_t qk_dim() const { return nope_dim + rope_dim; }
};

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
  out->info.config["rope_theta"] = rope.theta;
  out->info.config["rope_type"] = rope.type;
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

Result<DeepseekConfig> read_config(const Checkpoint& checkpoint) {
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
  out.info.config["q_lora_rank"] = out.q_rank;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

// The norms of the latents have their class's epsilon, whatever the configuration says.
constexpr double kLatentEpsilon = 1e-6;

class DeepseekLayer {
 public:
  DeepseekLayer(const DeepseekConfig& config, DecoderLayer& layer, ValueId zeros)
      : c_(config),
        layer_(layer),
        b_(layer.builder()),
        zeros_(zeros),
        heads_(config.info.num_attention_heads) {}

  ValueId build(ValueId x) {
    const ValueId h = layer_.norm(x, "attention_norm", "input_layernorm", "attn_norm");
    x = layer_.add(x, attention(h), "attention_residual");
    const ValueId m = layer_.norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
    const bool dense = layer_.index() < c_.dense_layers;
    return layer_.add(x, dense ? layer_.gated_mlp(m) : mixture(m), "output");
  }

 private:
  ValueId part(ValueId x, int64_t begin, int64_t end, const std::string& name) {
    return b_.add(SliceOp{-1, begin, end}, {x}, name);
  }
  ValueId turn(ValueId x, const std::string& name) {
    const Rotary& rotary = layer_.rotary();
    return b_.add(rotary.op, {x, rotary.position, rotary.frequencies}, name);
  }
  ValueId latent_norm(ValueId x, const std::string& which, int64_t size) {
    return layer_.norm(x, which + "_norm", "self_attn." + which + "_layernorm",
                       "attn_" + which + "_norm", {.size = size, .epsilon = kLatentEpsilon});
  }

  ValueId query(ValueId h) {
    const int64_t rows = heads_ * c_.qk_dim(), hidden = c_.info.hidden_size;
    if (!c_.q_rank)
      return layer_.linear(h, {"attention.q", "self_attn.q_proj", "attn_q", {rows, hidden}});
    const ValueId low = layer_.linear(
        h, {"attention.q_a", "self_attn.q_a_proj", "attn_q_a", {c_.q_rank, hidden}, c_.qkv_bias});
    return layer_.linear(latent_norm(low, "q_a", c_.q_rank),
                         {"attention.q_b", "self_attn.q_b_proj", "attn_q_b", {rows, c_.q_rank}});
  }

  // The part of the keys without positions, and the values, [B, H, T, ..] from the latent [B, T,
  // R].
  std::pair<ValueId, ValueId> expand(ValueId latent) {
    const int64_t nope = c_.nope_dim, value = c_.value_dim, rank = c_.kv_rank;
    if (layer_.has("", "attn_k_b.weight")) {
      const SymShape shape = {Symbol::kBatch, 1, Symbol::kTokens, rank};
      const ValueId one_head = b_.reshape(latent, shape, "latent_heads");
      const ValueId k = layer_.weights().get(
          layer_.row("attention.k_b.weight", "", "attn_k_b.weight", {heads_, rank, nope}));
      const ValueId v = layer_.weights().get(
          layer_.row("attention.v_b.weight", "", "attn_v_b.weight", {heads_, value, rank}));
      return {b_.add(MatMulOp{false}, {one_head, k}, "k_nope"),
              b_.add(MatMulOp{true}, {one_head, v}, "v")};
    }
    const ValueId rows = layer_.linear(
        latent,
        {"attention.kv_b", "self_attn.kv_b_proj", "attn_kv_b", {heads_ * (nope + value), rank}});
    const ValueId both = b_.split_heads(rows, heads_, nope + value, "kv_heads");
    return {part(both, 0, nope, "k_nope"), part(both, nope, nope + value, "v")};
  }

  ValueId attention(ValueId h) {
    const int64_t hidden = c_.info.hidden_size, nope = c_.nope_dim, rope_dim = c_.rope_dim;
    const int32_t index = static_cast<int32_t>(layer_.index());
    b_.scope("");
    const ValueId k_cache = b_.cache(index, CachePair::Kind::kKey, heads_, c_.qk_dim());
    const ValueId v_cache = b_.cache(index, CachePair::Kind::kValue, heads_, c_.value_dim);
    b_.scope("layers." + std::to_string(index) + ".");

    const ValueId q_all = b_.split_heads(query(h), heads_, c_.qk_dim(), "q_heads");
    const ValueId q_turned = turn(part(q_all, nope, nope + rope_dim, "q_rope_part"), "q_rope");
    const ValueId q = b_.add(ConcatOp{-1}, {part(q_all, 0, nope, "q_nope"), q_turned}, "q");

    const ValueId compressed = layer_.linear(h, {"attention.kv_a",
                                                 "self_attn.kv_a_proj_with_mqa",
                                                 "attn_kv_a_mqa",
                                                 {c_.kv_rank + rope_dim, hidden},
                                                 c_.qkv_bias});
    const ValueId latent =
        latent_norm(part(compressed, 0, c_.kv_rank, "latent"), "kv_a", c_.kv_rank);
    const ValueId k_part = part(compressed, c_.kv_rank, c_.kv_rank + rope_dim, "k_rope_part");
    const ValueId k_turned = turn(b_.split_heads(k_part, 1, rope_dim, "k_rope_head"), "k_rope");
    const auto [k_nope, v] = expand(latent);
    // One turned head serves all: adding it to zeros copies it.
    const ValueId k_shared = layer_.add(k_turned, zeros_, "k_rope_heads");
    const ValueId k = b_.add(ConcatOp{-1}, {k_nope, k_shared}, "k");
    const ValueId keys = b_.kv_write(k_cache, k, b_.position(), "k_all");
    const ValueId values = b_.kv_write(v_cache, v, b_.position(), "v_all");
    const ValueId out = b_.add(AttentionOp{c_.attention_scale}, {q, keys, values}, "attention");
    return layer_.linear(b_.merge_heads(out, "heads"), {"attention.o",
                                                        "self_attn.o_proj",
                                                        "attn_output",
                                                        {hidden, heads_ * c_.value_dim},
                                                        c_.output_bias});
  }

  ValueId mixture(ValueId h) {
    const ValueId logits = router_logits(layer_, h, "mlp.gate");
    ValueId mix;
    if (c_.sigmoid) {
      const ValueId correction =
          layer_.vector("router.correction", "mlp.gate.e_score_correction_bias", "exp_probs_b.bias",
                        c_.router.experts);
      mix = sigmoid_router(b_, logits, correction, c_.router);
    } else {
      mix = softmax_router(b_, logits, c_.router);
    }
    const ValueId routed =
        gated_experts(layer_, h, mix, {"mlp.experts", "gate_proj", "up_proj", "down_proj"});
    if (!c_.shared_width) return routed;
    const ValueId shared =
        layer_.gated_mlp(h, {"shared_experts", "mlp.shared_experts", "_shexp", c_.shared_width});
    return layer_.add(routed, shared, "mixture");
  }

  const DeepseekConfig& c_;
  DecoderLayer& layer_;
  GraphBuilder& b_;
  ValueId zeros_;  // [1, heads, 1, 1]
  int64_t heads_;
};

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DeepseekConfig config, read_config(checkpoint));
  ValueId zeros = kNoValue;
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    if (zeros == kNoValue) zeros = zero_heads(layer.builder(), config.info.num_attention_heads);
    return DeepseekLayer(config, layer, zeros).build(x);
  });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DeepseekConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& deepseek_family() {
  static const Family kFamily = {
      "deepseek", {"deepseek_v2", "deepseek_v3"}, {"deepseek2"}, read_info, build};
  return kFamily;
}

}  // namespace pome
