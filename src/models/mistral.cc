// Mistral 7B and its successors (Jiang et al. 2023, arXiv 2310.06825): Llama with a sliding window.
// GGUF files of it have the architecture "llama".
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  DecoderConfig out = read_decoder(config, checkpoint, {.family = "mistral"});
  out.info.architecture = "llama";
  refuse_true(config, "attention_bias");
  refuse_true(config, "mlp_bias");
  // The first release came before the key: without it the window has 4096 positions, null is none.
  const bool named = config.object().contains("sliding_window");
  const int64_t window = config.maybe_int("sliding_window", "").value_or(named ? 0 : 4096);
  read_windows(
      config, window, [](int64_t) { return true; }, &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint));
  PreNormBody body(config, {});
  body.context = options.context;
  return build_decoder(checkpoint, config, body);
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
