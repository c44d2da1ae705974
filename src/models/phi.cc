// Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al. 2023, arXiv 2306.11644; Li et al. 2023, arXiv
// 2309.05463): attention and MLP side by side behind one LayerNorm, rotary positions on a part of
// each head, biases everywhere, also on the logits.
#include <cmath>

#include "models/family.h"
#include "models/gpt_common.h"
#include "models/models.h"

namespace pome {

namespace {

struct PhiConfig : GptConfig {
  RopeConfig rope;
};

Result<PhiConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  PhiConfig out{read_gpt_config(config, checkpoint, "phi", GptKeys{}), {}};
  ModelInfo& info = out.info;
  info.num_key_value_heads = config.maybe_int("num_key_value_heads", "attention.head_count_kv")
                                 .value_or(info.num_attention_heads);
  if (info.num_key_value_heads < 1 || info.num_attention_heads % info.num_key_value_heads != 0) {
    config.complain(Refusal::kRange, "num_attention_heads " +
                                         std::to_string(info.num_attention_heads) +
                                         " must be a multiple of num_key_value_heads " +
                                         std::to_string(info.num_key_value_heads));
    info.num_key_value_heads = info.num_attention_heads;
  }
  Json keys;
  if (!config.is_gguf()) {
    keys = config.object();
    if (!keys.contains("partial_rotary_factor")) keys["partial_rotary_factor"] = 0.5;
  }
  out.rope = read_rope(config, info.head_dim, config.is_gguf() ? nullptr : &keys);
  if (out.rope.type == "longrope") config.unsupported("rope type 'longrope' in phi");
  if (config.maybe_bool("qk_layernorm", "").value_or(false)) config.unsupported("qk_layernorm");
  if (config.maybe_number("attention.clamp_kqv", "attention.clamp_kqv").value_or(0) != 0)
    config.unsupported("clamped q, k and v");
  info.config["rope_theta"] = out.rope.theta;
  info.config["rope_type"] = out.rope.type;
  info.config["rotary_dim"] = out.rope.rotary_dim;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

ValueId build_layer(const PhiConfig& c, WeightSet& weights, GraphBuilder& b, int32_t layer,
                    ValueId x, ValueId position, ValueId frequencies) {
  const std::string number = std::to_string(layer) + ".";
  GptLayer l(c, weights, b, {"layers." + number, "model.layers." + number, "blk." + number});
  b.scope("layers." + number);
  const ModelInfo& i = c.info;
  const int64_t q_rows = i.num_attention_heads * i.head_dim,
                kv_rows = i.num_key_value_heads * i.head_dim;
  const bool fused = weights.is_gguf() && l.has_gguf("attn_qkv");
  const auto part = [&](const char* name, const char* hf, const char* gguf, int64_t first,
                        int64_t rows) {
    Projection p{name, hf, fused ? "attn_qkv" : gguf, rows, i.hidden_size};
    if (fused) {
      p.stored_outputs = q_rows + 2 * kv_rows;
      p.row = [first](int64_t row) { return first + row; };
    }
    return p;
  };
  const ValueId h = l.norm(x, "norm", "input_layernorm", "attn_norm");
  const ValueId q = l.linear(h, part("attention.q", "self_attn.q_proj", "attn_q", 0, q_rows));
  const ValueId k = l.linear(h, part("attention.k", "self_attn.k_proj", "attn_k", q_rows, kv_rows));
  const ValueId v =
      l.linear(h, part("attention.v", "self_attn.v_proj", "attn_v", q_rows + kv_rows, kv_rows));
  const GptLayer::Rope rope{{RopeStyle::kHalves, c.rope.rotary_dim, c.rope.attention_factor},
                            frequencies};
  const AttentionOp op{1 / std::sqrt(static_cast<double>(i.head_dim))};
  const ValueId o =
      l.linear(l.attention(layer, q, k, v, position, op, rope),
               {"attention.o", "self_attn.dense", "attn_output", i.hidden_size, q_rows});
  const ValueId down = l.mlp(h, {"", "mlp.fc1", ""}, {"", "mlp.fc2", ""});
  x = b.binary(BinaryKind::kAdd, b.binary(BinaryKind::kAdd, o, down, "sum"), x, "output");
  b.end_layer(x);
  b.scope("");
  return x;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const PhiConfig config, read_config(checkpoint));
  GraphBuilder b(config.info);
  WeightSet weights(checkpoint, b);
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId frequencies =
      b.vector("rope.inverse_frequencies", inverse_frequencies(config.rope));
  const ValueId table = weights.get({"embedding.weight",
                                     "model.embed_tokens.weight",
                                     "token_embd.weight",
                                     {config.info.vocab_size, config.info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  for (int32_t layer = 0; layer < config.info.num_hidden_layers; ++layer)
    x = build_layer(config, weights, b, layer, x, position, frequencies);
  x = GptLayer(config, weights, b, {"", "model.", ""})
          .norm(x, "norm", "final_layernorm", "output_norm");
  const ValueId logits = add_head(config, weights, b, x, table, "lm_head", true);
  weights.ignore("rotary_emb.inv_freq");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(PhiConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& phi_family() {
  static const Family kFamily = {"phi", {"phi"}, {"phi2"}, read_info, build};
  return kFamily;
}

}  // namespace pome
