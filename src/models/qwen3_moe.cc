// Qwen3-MoE (Qwen team 2025, arXiv 2505.09388): RMSNorm on the heads of q and k, experts with an
// optional normalisation of their weights, dense layers among the sparse ones.
#include <algorithm>
#include <set>

#include "models/family.h"
#include "models/moe_decoder.h"

namespace pome {

namespace {

struct Qwen3MoeConfig {
  MoeDecoderConfig base;
  int64_t sparse_step = 1;
  std::set<int64_t> dense_layers;
  bool sparse(int64_t layer) const {
    return !dense_layers.count(layer) && (layer + 1) % sparse_step == 0;
  }
};

Result<Qwen3MoeConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  MoeDecoderKeys keys;
  keys.family = "qwen3_moe";
  keys.rms_norm_eps = 1e-6;
  Qwen3MoeConfig out;
  out.base = read_moe_decoder(config, checkpoint, keys);
  if (config.is_gguf()) {
    // llama.cpp normalises for this architecture.
    out.base.router.normalize = true;
  } else {
    out.base.router.normalize = config.maybe_bool("norm_topk_prob", "").value_or(false);
    out.sparse_step = config.maybe_int("decoder_sparse_step", "").value_or(1);
    if (out.sparse_step < 1) {
      config.complain(Refusal::kRange, "decoder_sparse_step must be at least 1");
      out.sparse_step = 1;
    }
    const auto dense = config.object().find("mlp_only_layers");
    if (dense != config.object().end() && !dense->is_null()) {
      const bool integers = dense->is_array() &&
                            std::all_of(dense->begin(), dense->end(),
                                        [](const Json& item) { return item.is_number_integer(); });
      if (!integers) config.complain(Refusal::kType, "mlp_only_layers must be a list of integers");
      if (integers)
        for (const Json& item : *dense) out.dense_layers.insert(item.get<int64_t>());
    }
    if (config.maybe_bool("use_sliding_window", "").value_or(false))
      config.unsupported("use_sliding_window in a qwen3_moe model");
  }
  bool any_dense = false;
  for (int64_t i = 0; i < out.base.info.num_hidden_layers; ++i) any_dense |= !out.sparse(i);
  if (any_dense && out.base.info.intermediate_size < 1)
    config.complain(Refusal::kRange, "intermediate_size is missing, and there are dense layers");
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

ValueId build_layer(MoeDecoderLayer& layer, const Qwen3MoeConfig& c, int64_t index, ValueId x,
                    ValueId position, ValueId frequencies) {
  GraphBuilder& b = layer.builder();
  const ModelInfo& info = c.base.info;
  MoeDecoderLayer::Attention attention;
  attention.qk_norm = true;
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = b.binary(BinaryKind::kAdd, x, layer.attention(h, position, frequencies, attention),
               "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  ValueId out;
  if (c.sparse(index)) {
    const ValueId logits = layer.linear(m, "router", "mlp.gate", "ffn_gate_inp",
                                        {c.base.router.experts, info.hidden_size}, false);
    out = layer.experts(m, softmax_router(b, logits, c.base.router),
                        {"mlp.experts", "gate_proj", "up_proj", "down_proj"});
  } else {
    out = layer.gated_mlp(m, "mlp", "mlp", "", info.intermediate_size);
  }
  return b.binary(BinaryKind::kAdd, x, out, "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const Qwen3MoeConfig config, read_config(checkpoint));
  return build_moe_decoder(
      checkpoint, config.base,
      [&](MoeDecoderLayer& layer, int64_t index, ValueId x, ValueId position, ValueId frequencies) {
        return build_layer(layer, config, index, x, position, frequencies);
      });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(Qwen3MoeConfig config, read_config(checkpoint));
  return std::move(config.base.info);
}

}  // namespace

const Family& qwen3_moe_family() {
  static const Family kFamily = {"qwen3_moe", {"qwen3_moe"}, {"qwen3moe"}, read_info, build};
  return kFamily;
}

}  // namespace pome
