// Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv 2407.10671, 2412.15115): biases on q, k and v.
// Qwen3 (Yang et al. 2025, arXiv 2505.09388): no biases, RMSNorm on the q and k of each head before
// the rotation. Both may let the later layers see a sliding window.
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

Result<DecoderConfig> read_config(const Checkpoint& checkpoint, bool qwen3) {
  ConfigReader config(checkpoint);
  DecoderDefaults defaults{.family = qwen3 ? "qwen3" : "qwen2"};
  if (qwen3) defaults.head_dim = 128;
  DecoderConfig out = read_decoder(config, checkpoint, defaults);
  if (qwen3) {
    out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  } else {
    out.qkv_bias = true;
  }
  refuse_true(config, "mlp_bias");
  if (config.maybe_bool("use_sliding_window", "").value_or(false)) {
    const int64_t first = config.maybe_int("max_window_layers", "").value_or(28);
    read_windows(
        config, config.maybe_int("sliding_window", "").value_or(4096),
        [first](int64_t layer) { return layer >= first; }, &out);
  } else {
    read_windows(
        config, 0, [](int64_t) { return false; }, &out);
  }
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

template <bool kQwen3>
Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint, kQwen3));
  PreNormBody body(config, {.qk_norm = kQwen3});
  body.context = options.context;
  return build_decoder(checkpoint, config, body);
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
