// Llama 2 and 3 (Touvron et al. 2023, arXiv 2302.13971, 2307.09288; Llama 3: arXiv 2407.21783):
// pre-norm decoder, RMSNorm, rotary positions, grouped-query attention, SwiGLU. SmolLM and SmolLM2
// are Llama models.
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
  "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-6})";

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  DecoderConfig out = read_decoder(config, checkpoint, {.family = "llama"});
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  out.mlp_bias = config.maybe_bool("mlp_bias", "").value_or(false);
  out.info.config["attention_bias"] = out.qkv_bias;
  out.info.config["mlp_bias"] = out.mlp_bias;
  if (config.maybe_int("", "expert_count").value_or(0) > 0)
    config.unsupported("experts in a llama GGUF");
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, [](DecoderLayer& layer, ValueId x) {
    return layer.pre_norm_layer(x, {.rotary = &layer.rotary(), .paired_heads = true});
  });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DecoderConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& llama_family() {
  static const Family kFamily = {"llama", {"llama"}, {"llama"}, read_info, build};
  return kFamily;
}

}  // namespace pome
