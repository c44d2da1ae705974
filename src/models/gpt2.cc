// GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): pre-norm
// decoder with LayerNorm, learned positions, one fused projection for q, k and v.
#include <cmath>

#include "models/family.h"
#include "models/gpt_common.h"
#include "models/models.h"

namespace pome {

namespace {

struct Gpt2Config : GptConfig {
  bool scale_by_width = true, scale_by_layer = false;
};

Result<Gpt2Config> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  GptKeys keys;
  keys.hidden_size = "n_embd";
  keys.num_hidden_layers = "n_layer";
  keys.num_attention_heads = "n_head";
  keys.max_position_embeddings = "n_positions";
  keys.intermediate_size = "n_inner";
  keys.layer_norm_eps = "layer_norm_epsilon";
  keys.activation = "activation_function";
  keys.tie_word_embeddings = true;
  Gpt2Config out{read_gpt_config(config, checkpoint, "gpt2", keys)};
  out.scale_by_width = config.maybe_bool("scale_attn_weights", "").value_or(true);
  out.scale_by_layer = config.maybe_bool("scale_attn_by_inverse_layer_idx", "").value_or(false);
  if (config.maybe_bool("add_cross_attention", "").value_or(false))
    config.unsupported("add_cross_attention");
  out.info.config["scale_attn_weights"] = out.scale_by_width;
  out.info.config["scale_attn_by_inverse_layer_idx"] = out.scale_by_layer;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

ValueId build_layer(const Gpt2Config& c, WeightSet& weights, GraphBuilder& b, int32_t layer,
                    const std::string& prefix, ValueId x, ValueId position) {
  const std::string number = std::to_string(layer) + ".";
  GptLayer l(c, weights, b, {"layers." + number, prefix + "h." + number, "blk." + number});
  b.scope("layers." + number);
  const int64_t hidden = c.info.hidden_size;
  const auto module = [&](const char* name, const char* hf, const char* gguf) {
    Projection p{name, hf, gguf, hidden, hidden};
    p.conv1d = true;
    return p;
  };
  const auto part = [&](const char* name, int64_t index) {
    Projection p = module(name, "attn.c_attn", "attn_qkv");
    p.stored_outputs = 3 * hidden;
    p.row = [first = index * hidden](int64_t i) { return first + i; };
    return p;
  };
  const ValueId h = l.norm(x, "attention_norm", "ln_1", "attn_norm");
  const ValueId q = l.linear(h, part("attention.q", 0)), k = l.linear(h, part("attention.k", 1)),
                v = l.linear(h, part("attention.v", 2));
  const double width = c.scale_by_width ? std::sqrt(static_cast<double>(c.info.head_dim)) : 1.0;
  const double depth = c.scale_by_layer ? layer + 1.0 : 1.0;
  const ValueId heads = l.attention(layer, q, k, v, position, AttentionOp{1 / (width * depth)});
  const ValueId o = l.linear(heads, module("attention.o", "attn.c_proj", "attn_output"));
  x = b.binary(BinaryKind::kAdd, x, o, "attention_residual");
  const ValueId m = l.norm(x, "mlp_norm", "ln_2", "ffn_norm");
  const ValueId down = l.mlp(m, module("", "mlp.c_fc", ""), module("", "mlp.c_proj", ""));
  x = b.binary(BinaryKind::kAdd, x, down, "output");
  b.end_layer(x);
  b.scope("");
  return x;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const Gpt2Config config, read_config(checkpoint));
  GraphBuilder b(config.info);
  WeightSet weights(checkpoint, b);
  // The first checkpoints are of the base model, whose names have no prefix.
  const std::string prefix = checkpoint.find("wte.weight") ? "" : "transformer.";
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId table = weights.get({"embedding.weight",
                                     prefix + "wte.weight",
                                     "token_embd.weight",
                                     {config.info.vocab_size, config.info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  x = add_learned_positions(config, weights, b, x, position, prefix + "wpe.weight",
                            "position_embd.weight");
  for (int32_t layer = 0; layer < config.info.num_hidden_layers; ++layer)
    x = build_layer(config, weights, b, layer, prefix, x, position);
  x = GptLayer(config, weights, b, {"", prefix, ""}).norm(x, "norm", "ln_f", "output_norm");
  const ValueId logits = add_head(config, weights, b, x, table, "lm_head");
  // Causal masks that were saved as buffers.
  weights.ignore(".attn.bias");
  weights.ignore(".attn.masked_bias");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(Gpt2Config config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& gpt2_family() {
  static const Family kFamily = {"gpt2", {"gpt2"}, {"gpt2"}, read_info, build};
  return kFamily;
}

}  // namespace pome
