// Mistral 7B and its successors (Jiang et al. 2023, arXiv 2310.06825): Llama with a sliding window.
// GGUF files of it have the architecture "llama".
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

// The first release came before the key of the window.
constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 4096})";

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  DecoderConfig out = read_decoder(config, checkpoint, {.family = "mistral"});
  out.info.architecture = "llama";
  refuse_true(config, "attention_bias");
  refuse_true(config, "mlp_bias");
  read_uniform_window(config, read_window(config, "sliding_window", ""), &out);
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

const Family& mistral_family() {
  static const Family kFamily = {"mistral", {"mistral"}, {}, read_info, build};
  return kFamily;
}

}  // namespace pome
