// Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024, arXiv 2404.14219; 2025, arXiv 2503.01743):
// Llama with q, k, v in one matrix, gate and up in another, a sliding window, and for long contexts
// rope factors by dimension (Ding et al. 2024, arXiv 2402.13753).
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  DecoderConfig out = read_decoder(config, checkpoint, {.family = "phi3", .rms_norm_eps = 1e-5});
  for (const char* key : {"attention_bias", "mlp_bias"}) refuse_true(config, key);
  const int64_t window = config.maybe_int("sliding_window", "attention.sliding_window").value_or(0);
  read_windows(
      config, window, [](int64_t) { return true; }, &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint));
  PreNormBody body(config, {.fused_qkv = true});
  body.fused_gate_up = true;
  body.context = options.context;
  return build_decoder(checkpoint, config, body);
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
