// Mixtral (Jiang et al. 2024, arXiv 2401.04088): a Llama whose feed-forward layers are mixtures of
// experts, weighted by the softmax over the chosen ones. GGUF calls its architecture "llama".
#include "models/family.h"
#include "models/moe_decoder.h"

namespace pome {

namespace {

struct MixtralConfig {
  MoeDecoderConfig base;
  int64_t window = 0;
};

Result<MixtralConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  MoeDecoderKeys keys;
  keys.family = "mixtral";
  keys.expert_width = "intermediate_size";
  keys.experts = "num_local_experts";
  MixtralConfig out;
  out.base = read_moe_decoder(config, checkpoint, keys);
  out.base.router.normalize = true;
  out.window = config.maybe_int("sliding_window", "attention.sliding_window").value_or(0);
  if (out.window < 0) config.complain(Refusal::kRange, "sliding_window must not be negative");
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

ValueId build_layer(MoeDecoderLayer& layer, const MixtralConfig& c, ValueId x, ValueId position,
                    ValueId frequencies) {
  GraphBuilder& b = layer.builder();
  const ModelInfo& info = c.base.info;
  MoeDecoderLayer::Attention attention;
  attention.window = c.window;
  attention.paired_heads = true;
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = b.binary(BinaryKind::kAdd, x, layer.attention(h, position, frequencies, attention),
               "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  const bool fused = layer.has("mlp.experts.gate_up_proj", "");
  const ValueId logits =
      layer.linear(m, "router", fused ? "mlp.gate" : "block_sparse_moe.gate", "ffn_gate_inp",
                   {c.base.router.experts, info.hidden_size}, false);
  const ValueId mix = softmax_router(b, logits, c.base.router);
  const ValueId out =
      layer.experts(m, mix, {"block_sparse_moe.experts", "w1", "w3", "w2", "mlp.experts"});
  return b.binary(BinaryKind::kAdd, x, out, "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const MixtralConfig config, read_config(checkpoint));
  return build_moe_decoder(
      checkpoint, config.base,
      [&](MoeDecoderLayer& layer, int64_t, ValueId x, ValueId position, ValueId frequencies) {
        return build_layer(layer, config, x, position, frequencies);
      });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(MixtralConfig config, read_config(checkpoint));
  return std::move(config.base.info);
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
