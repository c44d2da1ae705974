// SmolLM3 (Bakouch et al. 2025): Llama in which every fourth layer has no positions (Yang et al.
// 2025, arXiv 2501.18795).
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

struct SmolConfig : DecoderConfig {
  std::vector<bool> rotates;  // by layer
};

void read_rotations(ConfigReader& config, SmolConfig* out) {
  const int64_t layers = out->info.num_hidden_layers;
  out->rotates.assign(static_cast<size_t>(layers), true);
  const int64_t every = config.maybe_int("no_rope_layer_interval", "").value_or(4);
  if (every < 1)
    return config.complain(Refusal::kRange, "no_rope_layer_interval must be at least 1");
  for (int64_t layer = 0; layer < layers; ++layer)
    out->rotates[static_cast<size_t>(layer)] = (layer + 1) % every != 0;
  if (config.is_gguf()) return;
  // Despite its name, the list holds 1 where a layer has positions.
  const auto list = config.object().find("no_rope_layers");
  if (list == config.object().end() || list->is_null()) return;
  if (!list->is_array() || static_cast<int64_t>(list->size()) != layers)
    return config.complain(Refusal::kRange,
                           "no_rope_layers must list num_hidden_layers zeros or ones");
  for (size_t layer = 0; layer < list->size(); ++layer) {
    const Json& value = (*list)[layer];
    if (!value.is_number_integer() || (value != 0 && value != 1))
      return config.complain(Refusal::kType, "no_rope_layers must hold zeros and ones");
    out->rotates[layer] = value == 1;
  }
}

Result<SmolConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  SmolConfig out;
  static_cast<DecoderConfig&>(out) =
      read_decoder(config, checkpoint, {.family = "smollm3", .tie_word_embeddings = true});
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  out.mlp_bias = config.maybe_bool("mlp_bias", "").value_or(false);
  read_rotations(config, &out);
  const bool slides = config.maybe_bool("use_sliding_window", "").value_or(false);
  const int64_t window = slides ? config.maybe_int("sliding_window", "").value_or(0) : 0;
  const std::vector<bool>& rotates = out.rotates;
  read_windows(
      config, window, [&](int64_t layer) { return !rotates[static_cast<size_t>(layer)]; }, &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const SmolConfig config, read_config(checkpoint));
  PreNormBody body(config, {.paired_heads = true});
  body.context = options.context;
  body.rotates = [&](int64_t layer) { return config.rotates[static_cast<size_t>(layer)]; };
  return build_decoder(checkpoint, config, body);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(SmolConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& smollm3_family() {
  static const Family kFamily = {"smollm3", {"smollm3"}, {"smollm3"}, read_info, build};
  return kFamily;
}

}  // namespace pome
