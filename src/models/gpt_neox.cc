// GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv
// 2304.01373): attention and MLP side by side on one residual, rotary positions on a part of each
// head, one projection that holds q, k and v of each head in turn.
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
  "intermediate_size": 24576, "hidden_act": "gelu", "max_position_embeddings": 2048,
  "layer_norm_eps": 1e-5})";

struct GptNeoxConfig : DecoderConfig {
  bool parallel = true;
};

Result<GptNeoxConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  DecoderKeys keys{.family = "gpt_neox",
                   .num_key_value_heads = "",
                   .head_dim = "",
                   .norm_eps = "layer_norm_eps",
                   .layer_norm = true};
  keys.rope.partial_rotary_factor = 0.25;
  // Names of their own, which a file may have beside the usual ones.
  if (config.names("rotary_emb_base") || !config.names("rope_theta"))
    keys.rope.theta_key = "rotary_emb_base";
  if (config.names("rotary_pct") || !config.names("partial_rotary_factor"))
    keys.rope.partial_key = "rotary_pct";
  GptNeoxConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  // transformers 5 calls the head what other families call it.
  const std::string head = checkpoint.find("lm_head.weight") ? "lm_head" : "embed_out";
  out.names = {"gpt_neox.",
               "gpt_neox.embed_in",
               "gpt_neox.layers.",
               "gpt_neox.final_layer_norm",
               head,
               "",
               {".attention.bias", ".attention.masked_bias"}};  // causal masks
  out.parallel = config.maybe_bool("use_parallel_residual", "use_parallel_residual").value_or(true);
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(true);
  out.info.config["use_parallel_residual"] = out.parallel;
  out.info.config["attention_bias"] = out.qkv_bias;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId build_layer(DecoderLayer& layer, const GptNeoxConfig& c, ValueId x) {
  const int64_t hidden = c.info.hidden_size, dim = c.info.head_dim;
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  const auto part = [&](const char* name, int64_t index) {
    Projection p{name, "attention.query_key_value", "attn_qkv", {hidden, hidden}, c.qkv_bias};
    p.first_row = index * hidden, p.stored_rows = 3 * hidden;
    // Stored [heads, 3, dim]; llama.cpp's converter makes [3, heads, dim] of it.
    p.row = [dim, index](int64_t i) { return (i / dim * 3 + index) * dim + i % dim; };
    return layer.linear(h, p);
  };
  const ValueId q = part("attention.q", 0), k = part("attention.k", 1), v = part("attention.v", 2);
  const ValueId o = layer.linear(
      layer.attend(q, k, v, {.rotary = &layer.rotary()}),
      {"attention.o", "attention.dense", "attn_output", {hidden, hidden}, c.output_bias});
  const ValueId between = layer.add(x, o, "attention_residual");
  const ValueId m =
      layer.norm(c.parallel ? x : between, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  return layer.add(between, layer.plain_mlp(m, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const GptNeoxConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    return build_layer(layer, config, x);
  });
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
