// Mixtral (Jiang et al. 2024, arXiv 2401.04088): a Llama whose feed-forward layers are mixtures of
// experts, weighted by the softmax over the chosen ones. GGUF calls its architecture "llama".
#include "models/family.h"
#include "models/mixture.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "num_experts_per_tok": 2,
  "num_local_experts": 8})";

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  DecoderKeys keys{.family = "mixtral"};
  keys.rope.theta = 1e6;
  keys.wide_by_default = config.is_gguf();  // its files may say the width of experts only
  DecoderConfig out = read_decoder(config, checkpoint, keys);
  read_mixture(
      config,
      {.experts = "num_local_experts", .also = "num_experts", .expert_width = "intermediate_size"},
      &out);
  out.router.normalize = true;
  read_uniform_window(config, read_window(config, "sliding_window", ""), &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId build_layer(DecoderLayer& layer, ValueId x) {
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = layer.add(x, layer.attention(h, {.rotary = &layer.rotary(), .paired_heads = true}),
                "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  const bool old = layer.has("block_sparse_moe.gate.weight", "");
  const ValueId logits = router_logits(layer, m, old ? "block_sparse_moe.gate" : "mlp.gate");
  const ValueId mix = softmax_router(layer.builder(), logits, layer.config().router);
  const ValueId out =
      gated_experts(layer, m, mix, {"block_sparse_moe.experts", "w1", "w3", "w2", "mlp.experts"});
  return layer.add(x, out, "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, build_layer);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DecoderConfig config, read_config(checkpoint));
  return std::move(config.info);
}

// Among files of architecture "llama", those with experts.
bool has_experts(const Checkpoint& checkpoint) {
  if (checkpoint.format != "gguf") return true;
  const auto found = checkpoint.gguf.find("llama.expert_count");
  return found != checkpoint.gguf.end() && found->is_number() && found->get<double>() > 0;
}

}  // namespace

const Family& mixtral_family() {
  static const Family kFamily = {"mixtral", {"mixtral"}, {"llama"}, read_info, build, has_experts};
  return kFamily;
}

}  // namespace pome
