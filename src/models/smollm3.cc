// SmolLM3 (Bakouch et al. 2025): Llama in which every fourth layer has no positions (Yang et al.
// 2025, arXiv 2501.18795).
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
  "num_attention_heads": 16, "num_key_value_heads": 4, "hidden_act": "silu",
  "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "no_rope_layer_interval": 4,
  "tie_word_embeddings": true})";

struct SmolConfig : DecoderConfig {
  std::vector<bool> turned;  // by layer: has positions
};

void read_rotations(ConfigReader& config, SmolConfig* out) {
  const int64_t layers = out->info.num_hidden_layers;
  out->turned.assign(static_cast<size_t>(layers), true);
  const int64_t every = config.maybe_int("no_rope_layer_interval", "").value_or(4);
  if (every < 1)
    return config.complain(Refusal::kRange, "no_rope_layer_interval must be at least 1");
  for (int64_t layer = 0; layer < layers; ++layer)
    out->turned[static_cast<size_t>(layer)] = (layer + 1) % every != 0;
  // Despite its name, the list holds 1 where a layer has positions.
  const Json* list = config.value("no_rope_layers");
  if (!list) return;
  if (!list->is_array() || static_cast<int64_t>(list->size()) != layers)
    return config.complain(Refusal::kRange,
                           "no_rope_layers must list num_hidden_layers zeros or ones");
  for (size_t layer = 0; layer < list->size(); ++layer) {
    const Json& value = (*list)[layer];
    if (!value.is_number_integer() || (value != 0 && value != 1))
      return config.complain(Refusal::kType, "no_rope_layers must hold zeros and ones");
    out->turned[layer] = value == 1;
  }
  for (size_t layer = 0; layer < out->turned.size(); ++layer)
    if (out->turned[layer] != ((layer + 1) % 4 != 0)) {
      out->info.gguf.obstacles.push_back("layers without positions that are not every fourth");
      break;
    }
}

Result<SmolConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  SmolConfig out;
  DecoderKeys keys{.family = "smollm3"};
  keys.rope.theta = 2e6;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  out.mlp_bias = config.maybe_bool("mlp_bias", "").value_or(false);
  read_rotations(config, &out);
  const bool slides = config.maybe_bool("use_sliding_window", "").value_or(false);
  const int64_t window = read_window(config, "sliding_window", "");
  read_windows(
      config, window,
      [&](int64_t layer) {
        return slides && window > 0 && !out.turned[static_cast<size_t>(layer)];
      },
      &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const SmolConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    const bool turned = config.turned[static_cast<size_t>(layer.index())];
    return layer.pre_norm_layer(
        x, {.rotary = turned ? &layer.rotary() : nullptr, .paired_heads = true});
  });
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
