// Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024, arXiv 2404.14219; 2025, arXiv 2503.01743):
// Llama with q, k, v in one matrix, gate and up in another, a sliding window, and for long contexts
// rope factors by dimension (Ding et al. 2024, arXiv 2402.13753).
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
  "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 4096,
  "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5})";

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  DecoderKeys keys{.family = "phi3"};
  keys.rope.partial_rotary_factor = 1;
  keys.rope.yarn_is_longrope = true;
  DecoderConfig out = read_decoder(config, checkpoint, keys);
  if (!config.is_gguf() && out.rope.type != "default" && out.rope.type != "longrope")
    config.unsupported("rope type '" + out.rope.type + "' in this family");
  for (const char* key : {"attention_bias", "mlp_bias"}) refuse_true(config, key);
  const int64_t window = read_window(config);
  read_uniform_window(config, window, &out);
  out.info.gguf.values["attention.sliding_window"] = window;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, [](DecoderLayer& layer, ValueId x) {
    return layer.pre_norm_layer(x, {.rotary = &layer.rotary(), .fused_qkv = true}, true);
  });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DecoderConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& phi3_family() {
  static const Family kFamily = {"phi3", {"phi3"}, {"phi3"}, read_info, build};
  return kFamily;
}

}  // namespace pome
