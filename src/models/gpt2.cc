// GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): pre-norm
// decoder with LayerNorm, learned positions, one fused projection for q, k and v.
#include <cmath>

#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
  "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true})";

struct Gpt2Config : DecoderConfig {
  bool scale_by_width = true, scale_by_layer = false;
};

Result<Gpt2Config> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  const DecoderKeys keys{.family = "gpt2",
                         .hidden_size = "n_embd",
                         .num_hidden_layers = "n_layer",
                         .num_attention_heads = "n_head",
                         .num_key_value_heads = "",
                         .head_dim = "",
                         .max_position_embeddings = "n_positions",
                         .intermediate_size = "n_inner",
                         .norm_eps = "layer_norm_epsilon",
                         .hidden_act = "activation_function",
                         .layer_norm = true,
                         .wide_by_default = true,
                         .rotates = false};
  Gpt2Config out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  out.names = {"transformer.",
               "transformer.wte",
               "transformer.h.",
               "transformer.ln_f",
               "lm_head",
               "transformer.wpe",
               {".attn.bias", ".attn.masked_bias"}};  // causal masks
  out.scale_by_width = config.maybe_bool("scale_attn_weights", "").value_or(true);
  out.scale_by_layer = config.maybe_bool("scale_attn_by_inverse_layer_idx", "").value_or(false);
  if (!out.scale_by_width || out.scale_by_layer)
    out.info.gguf.obstacles.push_back("attention that is not scaled by the head dimension alone");
  refuse_true(config, "add_cross_attention");
  out.info.config["scale_attn_weights"] = out.scale_by_width;
  out.info.config["scale_attn_by_inverse_layer_idx"] = out.scale_by_layer;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId build_layer(DecoderLayer& layer, const Gpt2Config& c, ValueId x) {
  const int64_t hidden = c.info.hidden_size;
  const auto module = [&](const std::string& name, const char* hf, const char* gguf) {
    Projection p{name, hf, gguf, {hidden, hidden}, true};
    p.conv1d = true;
    return p;
  };
  const ValueId h = layer.norm(x, "attention_norm", "ln_1", "attn_norm");
  const auto part = [&](const char* name, int64_t index) {
    Projection p = module(name, "attn.c_attn", "attn_qkv");
    p.first_row = index * hidden, p.stored_rows = 3 * hidden;
    return layer.linear(h, p);
  };
  const ValueId q = part("attention.q", 0), k = part("attention.k", 1), v = part("attention.v", 2);
  const double width = c.scale_by_width ? std::sqrt(static_cast<double>(c.info.head_dim)) : 1.0;
  const double depth = c.scale_by_layer ? static_cast<double>(layer.index()) + 1 : 1.0;
  const ValueId heads = layer.attend(q, k, v, {.scale = 1 / (width * depth)});
  const ValueId o = layer.linear(heads, module("attention.o", "attn.c_proj", "attn_output"));
  x = layer.add(x, o, "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "ln_2", "ffn_norm");
  return layer.add(x, layer.plain_mlp(m, "mlp.c_fc", "mlp.c_proj", true), "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const Gpt2Config config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    return build_layer(layer, config, x);
  });
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
