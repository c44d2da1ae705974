// DeepSeek V2 and V3 (arXiv 2405.04434, 2412.19437): multi-head latent attention, a few dense
// layers before the sparse ones, experts chosen within groups beside shared ones. The graph expands
// keys and values from their latent before it caches them; the engine may cache the latent instead.
#include "models/deepseek_config.h"
#include "models/family.h"
#include "models/mixture.h"

namespace pome {

namespace {

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
  POME_ASSIGN_OR_RETURN(const DeepseekConfig config, read_deepseek(checkpoint));
  ValueId zeros = kNoValue;
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    if (zeros == kNoValue) zeros = zero_heads(layer.builder(), config.info.num_attention_heads);
    return DeepseekLayer(config, layer, zeros).build(x);
  });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DeepseekConfig config, read_deepseek(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& deepseek_family() {
  static const Family kFamily = {
      "deepseek", {"deepseek_v2", "deepseek_v3"}, {"deepseek2"}, read_info, build};
  return kFamily;
}

}  // namespace pome
