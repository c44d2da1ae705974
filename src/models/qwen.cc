// Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv 2407.10671, 2412.15115): biases on q, k and v.
// Qwen3 (Yang et al. 2025, arXiv 2505.09388): no biases, RMSNorm on the q and k of each head before
// the rotation. Both may let the later layers see a sliding window.
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu",
  "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096,
  "max_window_layers": 28})";
constexpr std::string_view kClassDefaults3 = R"({
  "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "hidden_act": "silu",
  "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096,
  "max_window_layers": 28})";

Result<DecoderConfig> read_config(const Checkpoint& checkpoint, bool qwen3) {
  ConfigReader config(checkpoint, qwen3 ? kClassDefaults3 : kClassDefaults);
  DecoderConfig out = read_decoder(config, checkpoint, {.family = qwen3 ? "qwen3" : "qwen2"});
  out.qkv_bias = !qwen3;
  if (qwen3)
    out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  refuse_true(config, "mlp_bias");
  const bool use = config.maybe_bool("use_sliding_window", "").value_or(false);
  const int64_t window = use ? read_window(config, "sliding_window", "") : 0;
  const int64_t first = config.maybe_int("max_window_layers", "").value_or(0);
  read_windows(
      config, window, [&](int64_t layer) { return window > 0 && layer >= first; }, &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

template <bool kQwen3>
Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint, kQwen3));
  return build_decoder(checkpoint, config, options, [](DecoderLayer& layer, ValueId x) {
    return layer.pre_norm_layer(x, {.rotary = &layer.rotary(), .head_norm = kQwen3 ? "norm" : ""});
  });
}

template <bool kQwen3>
Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DecoderConfig config, read_config(checkpoint, kQwen3));
  return std::move(config.info);
}

}  // namespace

const Family& qwen2_family() {
  static const Family kFamily = {"qwen2", {"qwen2"}, {"qwen2"}, read_info<false>, build<false>};
  return kFamily;
}

const Family& qwen3_family() {
  static const Family kFamily = {"qwen3", {"qwen3"}, {"qwen3"}, read_info<true>, build<true>};
  return kFamily;
}

}  // namespace pome
