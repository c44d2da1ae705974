// GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv
// 2304.01373): attention and MLP side by side on one residual, rotary positions on a part of each
// head, one projection that holds q, k and v of each head in turn.
#include <cmath>

#include "models/family.h"
#include "models/gpt_common.h"
#include "models/models.h"

namespace pome {

namespace {

struct GptNeoxConfig : GptConfig {
  RopeConfig rope;
  bool parallel = true, attention_bias = true;
};

// Earlier configurations say rotary_pct and rotary_emb_base; the same keys as everywhere else come
// out.
Json rope_keys(const Json& config) {
  Json out = config;
  const auto rename = [&](const char* from, const char* to) {
    const auto found = config.find(from);
    if (found != config.end() && !found->is_null() && !config.contains(to)) out[to] = *found;
  };
  rename("rotary_pct", "partial_rotary_factor");
  rename("rotary_emb_base", "rope_theta");
  if (!out.contains("partial_rotary_factor")) out["partial_rotary_factor"] = 0.25;
  return out;
}

Result<GptNeoxConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  GptKeys keys;
  keys.intermediate_size_required = true;
  keys.default_activation = "gelu";
  GptNeoxConfig out{read_gpt_config(config, checkpoint, "gpt_neox", keys), {}};
  const Json keys_of_rope = config.is_gguf() ? Json() : rope_keys(config.object());
  out.rope = read_rope(config, out.info.head_dim, config.is_gguf() ? nullptr : &keys_of_rope);
  if (out.rope.type == "longrope") config.unsupported("rope type 'longrope' in gpt_neox");
  out.parallel = config.maybe_bool("use_parallel_residual", "use_parallel_residual").value_or(true);
  out.attention_bias = config.maybe_bool("attention_bias", "").value_or(true);
  out.info.config["rope_theta"] = out.rope.theta;
  out.info.config["rope_type"] = out.rope.type;
  out.info.config["rotary_dim"] = out.rope.rotary_dim;
  out.info.config["use_parallel_residual"] = out.parallel;
  out.info.config["attention_bias"] = out.attention_bias;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

ValueId build_layer(const GptNeoxConfig& c, WeightSet& weights, GraphBuilder& b, int32_t layer,
                    const std::string& prefix, ValueId x, ValueId position, ValueId frequencies) {
  const std::string number = std::to_string(layer) + ".";
  GptLayer l(c, weights, b, {"layers." + number, prefix + "layers." + number, "blk." + number});
  b.scope("layers." + number);
  const int64_t hidden = c.info.hidden_size, dim = c.info.head_dim;
  const auto part = [&](const char* name, int64_t index) {
    Projection p{name, "attention.query_key_value", "attn_qkv", hidden, hidden, c.attention_bias};
    p.stored_outputs = 3 * hidden;
    // Stored [heads, 3, dim]; llama.cpp's converter makes [3, heads, dim] of it.
    if (weights.is_gguf())
      p.row = [first = index * hidden](int64_t i) { return first + i; };
    else
      p.row = [dim, index](int64_t i) { return (i / dim * 3 + index) * dim + i % dim; };
    return p;
  };
  const ValueId h = l.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  const ValueId q = l.linear(h, part("attention.q", 0)), k = l.linear(h, part("attention.k", 1)),
                v = l.linear(h, part("attention.v", 2));
  const GptLayer::Rope rope{{RopeStyle::kHalves, c.rope.rotary_dim, c.rope.attention_factor},
                            frequencies};
  const AttentionOp op{1 / std::sqrt(static_cast<double>(dim))};
  const ValueId o =
      l.linear(l.attention(layer, q, k, v, position, op, rope),
               {"attention.o", "attention.dense", "attn_output", hidden, hidden, c.attention_bias});
  const ValueId between = b.binary(BinaryKind::kAdd, x, o, "attention_residual");
  const ValueId m =
      l.norm(c.parallel ? x : between, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  const ValueId down = l.mlp(m, {"", "mlp.dense_h_to_4h", ""}, {"", "mlp.dense_4h_to_h", ""});
  x = b.binary(BinaryKind::kAdd, between, down, "output");
  b.end_layer(x);
  b.scope("");
  return x;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const GptNeoxConfig config, read_config(checkpoint));
  GraphBuilder b(config.info);
  WeightSet weights(checkpoint, b);
  const std::string prefix = checkpoint.find("embed_in.weight") ? "" : "gpt_neox.";
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId frequencies =
      b.vector("rope.inverse_frequencies", inverse_frequencies(config.rope));
  const ValueId table = weights.get({"embedding.weight",
                                     prefix + "embed_in.weight",
                                     "token_embd.weight",
                                     {config.info.vocab_size, config.info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  for (int32_t layer = 0; layer < config.info.num_hidden_layers; ++layer)
    x = build_layer(config, weights, b, layer, prefix, x, position, frequencies);
  x = GptLayer(config, weights, b, {"", prefix, ""})
          .norm(x, "norm", "final_layer_norm", "output_norm");
  const ValueId logits = add_head(config, weights, b, x, table, "embed_out");
  // Causal masks and frequencies that were saved as buffers.
  weights.ignore(".attention.bias");
  weights.ignore(".attention.masked_bias");
  weights.ignore("rotary_emb.inv_freq");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(GptNeoxConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& gpt_neox_family() {
  static const Family kFamily = {"gpt_neox", {"gpt_neox"}, {"gptneox"}, read_info, build};
  return kFamily;
}

}  // namespace pome
