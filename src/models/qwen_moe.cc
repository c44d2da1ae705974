// Qwen1.5-MoE and Qwen2-MoE (Qwen team 2024, arXiv 2407.10671): biases on q, k and v, and beside
// the experts a shared one behind a gate of its own. Qwen3-MoE (2025, arXiv 2505.09388): RMSNorm on
// the heads of q and k, no shared expert. Both: the weights of the experts sum to 1 or not, and
// some layers may be dense.
#include "models/family.h"
#include "models/mixture.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults2 = R"({
  "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
  "num_attention_heads": 16, "num_key_value_heads": 16, "hidden_act": "silu",
  "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096,
  "max_window_layers": 28, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
  "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60})";
constexpr std::string_view kClassDefaults3 = R"({
  "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
  "num_attention_heads": 32, "num_key_value_heads": 4, "hidden_act": "silu",
  "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096,
  "decoder_sparse_step": 1, "moe_intermediate_size": 768, "num_experts_per_tok": 8,
  "num_experts": 128})";

struct QwenMoeConfig : DecoderConfig {
  bool third = false;
  int64_t shared_width = 0;
  std::vector<bool> sparse;  // by layer
};

Result<QwenMoeConfig> read_config(const Checkpoint& checkpoint, bool third) {
  ConfigReader config(checkpoint, third ? kClassDefaults3 : kClassDefaults2);
  DecoderKeys keys{.family = third ? "qwen3_moe" : "qwen2_moe"};
  keys.wide_by_default = config.is_gguf();  // its files may say the width of experts only
  QwenMoeConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  out.third = third;
  read_mixture(config, {}, &out);
  out.sparse = read_sparse_layers(config, out);
  // llama.cpp normalises for the third alone.
  out.router.normalize =
      config.is_gguf() ? third : config.maybe_bool("norm_topk_prob", "").value_or(false);
  if (out.router.normalize != third)
    out.info.gguf.obstacles.push_back("norm_topk_prob " +
                                      std::string(out.router.normalize ? "true" : "false"));
  const bool slides = config.maybe_bool("use_sliding_window", "").value_or(false);
  const int64_t window = slides ? read_window(config, "sliding_window", "") : 0;
  if (third) {
    out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
    read_uniform_window(config, window, &out);
  } else {
    out.qkv_bias = config.maybe_bool("qkv_bias", "").value_or(true);
    out.shared_width = config.integer("shared_expert_intermediate_size",
                                      "expert_shared_feed_forward_length", 1, 1 << 22);
    const int64_t end = config.maybe_int("max_window_layers", "").value_or(0);
    read_windows(
        config, window, [&](int64_t layer) { return window > 0 && layer < end && layer % 2 == 0; },
        &out);
  }
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId mixture(DecoderLayer& layer, const QwenMoeConfig& c, ValueId h) {
  GraphBuilder& b = layer.builder();
  const ValueId mix = softmax_router(b, router_logits(layer, h, "mlp.gate"), c.router);
  const ValueId routed =
      gated_experts(layer, h, mix, {"mlp.experts", "gate_proj", "up_proj", "down_proj"});
  if (!c.shared_width) return routed;
  const ValueId shared =
      layer.gated_mlp(h, {"shared_expert", "mlp.shared_expert", "_shexp", c.shared_width});
  const Shape gate = {1, c.info.hidden_size};
  WeightRow row = layer.row("shared_switch.weight", "mlp.shared_expert_gate.weight",
                            "ffn_gate_inp_shexp.weight", gate);
  row.gguf.vector = true;
  const ValueId open = b.linear(h, layer.weights().get(row), kNoValue, "shared_switch");
  const ValueId part =
      b.binary(BinaryKind::kMul, shared, b.unary(UnaryKind::kSigmoid, open), "shared_expert_part");
  return layer.add(routed, part, "mixture");
}

ValueId build_layer(DecoderLayer& layer, const QwenMoeConfig& c, ValueId x) {
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = layer.add(x,
                layer.attention(h, {.rotary = &layer.rotary(), .head_norm = c.third ? "norm" : ""}),
                "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  const bool sparse = c.sparse[static_cast<size_t>(layer.index())];
  return layer.add(x, sparse ? mixture(layer, c, m) : layer.gated_mlp(m), "output");
}

template <bool kThird>
Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const QwenMoeConfig config, read_config(checkpoint, kThird));
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    return build_layer(layer, config, x);
  });
}

template <bool kThird>
Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(QwenMoeConfig config, read_config(checkpoint, kThird));
  return std::move(config.info);
}

}  // namespace

const Family& qwen2_moe_family() {
  static const Family kFamily = {
      "qwen2_moe", {"qwen2_moe"}, {"qwen2moe"}, read_info<false>, build<false>};
  return kFamily;
}

const Family& qwen3_moe_family() {
  static const Family kFamily = {
      "qwen3_moe", {"qwen3_moe"}, {"qwen3moe"}, read_info<true>, build<true>};
  return kFamily;
}

}  // namespace pome
