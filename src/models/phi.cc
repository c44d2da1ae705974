// Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al. 2023, arXiv 2306.11644; Li et al. 2023, arXiv
// 2309.05463): attention and MLP side by side behind one LayerNorm, rotary positions on a part of
// each head, biases everywhere, also on the logits.
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
  "num_attention_heads": 32, "hidden_act": "gelu_new", "max_position_embeddings": 2048,
  "layer_norm_eps": 1e-5})";

struct PhiConfig : DecoderConfig {
  bool head_norms = false;
};

Result<PhiConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  PhiConfig out;
  DecoderKeys keys{.family = "phi", .norm_eps = "layer_norm_eps", .layer_norm = true};
  keys.rope.partial_rotary_factor = 0.5;
  keys.wide_by_default = config.is_gguf();
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  if (out.rope.frequency_dim != out.rope.rotary_dim)
    config.complain(Refusal::kRange, "partial_rotary_factor makes an odd rotary dimension of " +
                                         std::to_string(out.rope.frequency_dim));
  out.names.norm = "model.final_layernorm";
  out.qkv_bias = out.head_bias = true;
  out.head_norms = config.maybe_bool("qk_layernorm", "").value_or(false);
  if (out.head_norms) out.info.gguf.obstacles.push_back("norms of the heads of q and k");
  if (config.maybe_number("", "attention.clamp_kqv").value_or(0) != 0)
    config.unsupported("clamped q, k and v");
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId build_layer(DecoderLayer& layer, const PhiConfig& c, ValueId x) {
  const ModelInfo& i = c.info;
  const int64_t q_rows = i.num_attention_heads * i.head_dim,
                kv_rows = i.num_key_value_heads * i.head_dim;
  const bool fused = layer.has("", "attn_qkv.weight");  // as llama.cpp's converter writes it
  const auto part = [&](const char* which, int64_t first, int64_t rows) {
    const std::string name = which;
    Projection p{"attention." + name,
                 "self_attn." + name + "_proj",
                 fused ? "attn_qkv" : "attn_" + name,
                 {rows, i.hidden_size},
                 true};
    if (fused) p.first_row = first, p.stored_rows = q_rows + 2 * kv_rows;
    return p;
  };
  const ValueId h = layer.norm(x, "norm", "input_layernorm", "attn_norm");
  const ValueId q = layer.linear(h, part("q", 0, q_rows)),
                k = layer.linear(h, part("k", q_rows, kv_rows)),
                v = layer.linear(h, part("v", q_rows + kv_rows, kv_rows));
  const ValueId heads = layer.attend(
      q, k, v, {.rotary = &layer.rotary(), .head_norm = c.head_norms ? "layernorm" : ""});
  const ValueId o = layer.linear(
      heads, {"attention.o", "self_attn.dense", "attn_output", {i.hidden_size, q_rows}, true});
  const ValueId down = layer.plain_mlp(h, "mlp.fc1", "mlp.fc2");
  return layer.add(layer.add(o, down, "sum"), x, "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const PhiConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    return build_layer(layer, config, x);
  });
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
