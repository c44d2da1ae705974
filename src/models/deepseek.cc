// DeepSeek V2 and V3 (arXiv 2405.04434, 2412.19437): multi-head latent attention, a few dense
// layers before the sparse ones, experts chosen within groups beside shared ones. Keys and values
// are expanded from their latent before they are cached.
#include <algorithm>
#include <cmath>

#include "models/family.h"
#include "models/moe_decoder.h"

namespace pome {

namespace {

struct DeepseekConfig {
  MoeDecoderConfig base;
  int64_t q_rank = 0, kv_rank = 0;  // q_rank 0: q has one projection
  int64_t nope_dim = 0, rope_dim = 0, value_dim = 0;
  RopeStyle rope_style = RopeStyle::kInterleaved;
  double attention_scale = 1;
  int64_t dense_layers = 0, shared_width = 0;
  bool sigmoid = false;
  int64_t qk_dim() const { return nope_dim + rope_dim; }
};

void read_router(ConfigReader& config, DeepseekConfig* out) {
  RouterConfig& router = out->base.router;
  router.scale = config.positive("routed_scaling_factor", "expert_weights_scale", 1.0);
  router.normalize = config.maybe_bool("norm_topk_prob", "expert_weights_norm")
                         .value_or(!config.is_gguf() && out->sigmoid);
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

void read_attention(ConfigReader& config, DeepseekConfig* out) {
  const ModelInfo& info = out->base.info;
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
    if (!config.maybe_bool("rope_interleave", "").value_or(true))
      out->rope_style = RopeStyle::kHalves;
  }
  if (out->q_rank < 0 || out->q_rank > 1 << 20) {
    config.complain(Refusal::kRange, "q_lora_rank is out of range");
    out->q_rank = 0;
  }
  RopeConfig& rope = out->base.rope;
  rope = read_rope(config, out->rope_dim);
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
  out->base.info.head_dim = out->qk_dim();
  out->base.info.num_key_value_heads = info.num_attention_heads;
}

Result<DeepseekConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  MoeDecoderKeys keys;
  keys.family = "deepseek";
  keys.rms_norm_eps = 1e-6;
  keys.experts = "n_routed_experts";
  keys.own_head_dim = false;
  DeepseekConfig out;
  out.base = read_moe_decoder(config, checkpoint, keys);
  ModelInfo& info = out.base.info;
  if (config.is_gguf()) {
    // Files from a configuration without scoring_func do not name it; the tensor that only a
    // sigmoid router has tells.
    const bool corrected =
        std::any_of(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                    [](const auto& tensor) { return tensor.name.ends_with(".exp_probs_b.bias"); });
    const int64_t gating = config.maybe_int("", "expert_gating_func").value_or(corrected ? 2 : 1);
    if (gating != 1 && gating != 2)
      config.unsupported("expert_gating_func " + std::to_string(gating));
    out.sigmoid = gating == 2;
    if (config.maybe_int("", "nextn_predict_layers").value_or(0) > 0)
      config.unsupported("layers that predict further tokens in GGUF");
  } else {
    out.sigmoid = config.maybe_string("model_type", "").value_or("") == "deepseek_v3";
    const std::string scores = out.sigmoid ? "sigmoid" : "softmax";
    if (config.maybe_string("scoring_func", "").value_or(scores) != scores)
      config.unsupported("another scoring_func than " + scores);
    const int64_t predicting = config.maybe_int("num_nextn_predict_layers", "").value_or(0);
    if (predicting < 0 || predicting > 64)
      config.complain(Refusal::kRange, "num_nextn_predict_layers is out of range");
    // Layers behind the last that only guess further tokens.
    for (int64_t i = 0; i < std::min<int64_t>(predicting, 64); ++i)
      out.base.ignored_prefixes.push_back("model.layers." +
                                          std::to_string(info.num_hidden_layers + i) + ".");
  }
  read_attention(config, &out);
  read_router(config, &out);
  out.dense_layers =
      config.maybe_int("first_k_dense_replace", "leading_dense_block_count").value_or(0);
  if (!config.is_gguf() && config.maybe_int("moe_layer_freq", "").value_or(1) != 1)
    config.unsupported("moe_layer_freq other than 1");
  const int64_t shared = config.maybe_int("n_shared_experts", "expert_shared_count").value_or(0);
  if (shared < 0 || shared > 1 << 12) config.complain(Refusal::kRange, "n_shared_experts");
  out.shared_width = std::clamp<int64_t>(shared, 0, 1 << 12) * out.base.expert_width;
  if (out.dense_layers > 0 && info.intermediate_size < 1)
    config.complain(Refusal::kRange, "intermediate_size is missing, and there are dense layers");
  info.config["kv_lora_rank"] = out.kv_rank;
  info.config["q_lora_rank"] = out.q_rank;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

class DeepseekLayer {
 public:
  DeepseekLayer(const DeepseekConfig& config, MoeDecoderLayer& layer, int64_t index, ValueId zeros)
      : c_(config), layer_(layer), b_(layer.builder()), index_(index), zeros_(zeros) {}

  ValueId build(ValueId x, ValueId position, ValueId frequencies) {
    const ValueId h = layer_.norm(x, "attention_norm", "input_layernorm", "attn_norm");
    x = b_.binary(BinaryKind::kAdd, x, attention(h, position, frequencies), "attention_residual");
    const ValueId m = layer_.norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
    const ValueId out = index_ < c_.dense_layers
                            ? layer_.gated_mlp(m, "mlp", "mlp", "", c_.base.info.intermediate_size)
                            : mixture(m);
    return b_.binary(BinaryKind::kAdd, x, out, "output");
  }

 private:
  int64_t heads() const { return c_.base.info.num_attention_heads; }
  ValueId part(ValueId x, int64_t begin, int64_t end, const std::string& name) {
    return b_.add(SliceOp{-1, begin, end}, {x}, name);
  }

  ValueId query(ValueId h) {
    const int64_t rows = heads() * c_.qk_dim(), hidden = c_.base.info.hidden_size;
    const bool bias = c_.base.attention_bias;
    if (!c_.q_rank)
      return layer_.linear(h, "attention.q", "self_attn.q_proj", "attn_q", {rows, hidden}, false);
    const ValueId low = layer_.linear(h, "attention.q_a", "self_attn.q_a_proj", "attn_q_a",
                                      {c_.q_rank, hidden}, bias);
    const ValueId normed =
        layer_.norm(low, "q_a_norm", "self_attn.q_a_layernorm", "attn_q_a_norm", c_.q_rank);
    return layer_.linear(normed, "attention.q_b", "self_attn.q_b_proj", "attn_q_b",
                         {rows, c_.q_rank}, false);
  }

  // The part of the keys without positions, and the values, [B, H, T, ..] from the latent [B, T,
  // R].
  std::pair<ValueId, ValueId> expand(ValueId latent) {
    const int64_t nope = c_.nope_dim, value = c_.value_dim, rank = c_.kv_rank;
    if (layer_.has("", "attn_k_b.weight")) {
      const SymShape shape = {Symbol::kBatch, 1, Symbol::kTokens, rank};
      const ValueId one_head = b_.reshape(latent, shape, "latent_heads");
      const ValueId k = layer_.weights().get(
          layer_.row("attention.k_b.weight", "", "attn_k_b.weight", {heads(), rank, nope}));
      const ValueId v = layer_.weights().get(
          layer_.row("attention.v_b.weight", "", "attn_v_b.weight", {heads(), value, rank}));
      return {b_.add(MatMulOp{false}, {one_head, k}, "k_nope"),
              b_.add(MatMulOp{true}, {one_head, v}, "v")};
    }
    const ValueId both =
        b_.split_heads(layer_.linear(latent, "attention.kv_b", "self_attn.kv_b_proj", "attn_kv_b",
                                     {heads() * (nope + value), rank}, false),
                       heads(), nope + value, "kv_heads");
    return {part(both, 0, nope, "k_nope"), part(both, nope, nope + value, "v")};
  }

  ValueId attention(ValueId h, ValueId position, ValueId frequencies) {
    const int64_t hidden = c_.base.info.hidden_size, nope = c_.nope_dim, rope_dim = c_.rope_dim;
    b_.scope("");
    const ValueId k_cache = b_.cache(layer_.index(), CachePair::Kind::kKey, heads(), c_.qk_dim());
    const ValueId v_cache =
        b_.cache(layer_.index(), CachePair::Kind::kValue, heads(), c_.value_dim);
    b_.scope("layers." + std::to_string(index_) + ".");
    const RopeOp rope{c_.rope_style, c_.base.rope.rotary_dim, c_.base.rope.attention_factor};

    const ValueId q_all = b_.split_heads(query(h), heads(), c_.qk_dim(), "q_heads");
    const ValueId q_turned = b_.add(
        rope, {part(q_all, nope, nope + rope_dim, "q_rope_part"), position, frequencies}, "q_rope");
    const ValueId q = b_.add(ConcatOp{-1}, {part(q_all, 0, nope, "q_nope"), q_turned}, "q");

    const ValueId compressed =
        layer_.linear(h, "attention.kv_a", "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa",
                      {c_.kv_rank + rope_dim, hidden}, c_.base.attention_bias);
    const ValueId latent = layer_.norm(part(compressed, 0, c_.kv_rank, "latent"), "kv_a_norm",
                                       "self_attn.kv_a_layernorm", "attn_kv_a_norm", c_.kv_rank);
    const ValueId k_part =
        b_.split_heads(part(compressed, c_.kv_rank, c_.kv_rank + rope_dim, "k_rope_part"), 1,
                       rope_dim, "k_rope_head");
    const ValueId k_turned = b_.add(rope, {k_part, position, frequencies}, "k_rope");
    const auto [k_nope, v] = expand(latent);
    // One turned head serves all: adding it to zeros copies it.
    const ValueId k_shared = b_.binary(BinaryKind::kAdd, k_turned, zeros_, "k_rope_heads");
    const ValueId k = b_.add(ConcatOp{-1}, {k_nope, k_shared}, "k");
    const ValueId keys = b_.kv_write(k_cache, k, position, "k_all");
    const ValueId values = b_.kv_write(v_cache, v, position, "v_all");
    const ValueId out = b_.add(AttentionOp{c_.attention_scale}, {q, keys, values}, "attention");
    return layer_.linear(b_.merge_heads(out, "heads"), "attention.o", "self_attn.o_proj",
                         "attn_output", {hidden, heads() * c_.value_dim}, c_.base.attention_bias);
  }

  ValueId mixture(ValueId h) {
    const RouterConfig& router = c_.base.router;
    const ValueId logits = layer_.linear(h, "router", "mlp.gate", "ffn_gate_inp",
                                         {router.experts, c_.base.info.hidden_size}, false);
    ValueId mix;
    if (c_.sigmoid) {
      const ValueId correction =
          layer_.vector("router.correction", "mlp.gate.e_score_correction_bias", "exp_probs_b.bias",
                        router.experts);
      mix = sigmoid_router(b_, logits, correction, router);
    } else {
      mix = softmax_router(b_, logits, router);
    }
    const ValueId routed =
        layer_.experts(h, mix, {"mlp.experts", "gate_proj", "up_proj", "down_proj"});
    if (!c_.shared_width) return routed;
    return b_.binary(
        BinaryKind::kAdd, routed,
        layer_.gated_mlp(h, "shared_experts", "mlp.shared_experts", "_shexp", c_.shared_width),
        "mixture");
  }

  const DeepseekConfig& c_;
  MoeDecoderLayer& layer_;
  GraphBuilder& b_;
  int64_t index_;
  ValueId zeros_;  // [1, heads, 1, 1]
};

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const DeepseekConfig config, read_config(checkpoint));
  ValueId zeros = kNoValue;
  return build_moe_decoder(
      checkpoint, config.base,
      [&](MoeDecoderLayer& layer, int64_t index, ValueId x, ValueId position, ValueId frequencies) {
        if (zeros == kNoValue)
          zeros = zero_heads(layer.builder(), config.base.info.num_attention_heads);
        return DeepseekLayer(config, layer, index, zeros).build(x, position, frequencies);
      });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DeepseekConfig config, read_config(checkpoint));
  return std::move(config.base.info);
}

}  // namespace

const Family& deepseek_family() {
  static const Family kFamily = {
      "deepseek", {"deepseek_v2", "deepseek_v3"}, {"deepseek2"}, read_info, build};
  return kFamily;
}

}  // namespace pome
