// GPT-Neo (Black et al. 2021, EleutherAI; also TinyStories, Eldan and Li 2023, arXiv 2305.07759):
// as GPT-2, with plain projections without bias for q, k and v, scores that are not scaled, and
// layers that see everything in turn with layers that see a window.
#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 50257, "max_position_embeddings": 2048, "hidden_size": 2048, "num_layers": 24,
  "num_heads": 16, "window_size": 256, "activation_function": "gelu_new",
  "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true})";

// attention_types: [[["global", "local"], 6], ..] is that pattern six times; attention_layers is
// the same written out.
std::vector<std::string> attention_layers(ConfigReader& config, int64_t layers) {
  std::vector<std::string> out;
  const auto bad = [&](const char* key) {
    config.complain(Refusal::kType, std::string(key) + " is not a list of layer types");
    return std::vector<std::string>{};
  };
  const Json *types = config.value("attention_types"), *list = config.value("attention_layers");
  const auto append = [&](const Json& names) {
    if (!names.is_array()) return false;
    for (const Json& name : names) {
      if (!name.is_string()) return false;
      out.push_back(name.get<std::string>());
    }
    return true;
  };
  if (types) {
    if (!types->is_array()) return bad("attention_types");
    for (const Json& entry : *types) {
      if (!entry.is_array() || entry.size() != 2 || !entry[1].is_number_integer())
        return bad("attention_types");
      const int64_t times = entry[1].get<int64_t>();
      if (times < 0 || times > layers) return bad("attention_types");
      // Stops at one more than there are layers, whatever the file says.
      for (int64_t i = 0; i < times && static_cast<int64_t>(out.size()) <= layers; ++i)
        if (!append(entry[0])) return bad("attention_types");
    }
    if (list && *list != Json(out))
      config.unsupported("attention_layers that differ from attention_types");
  } else if (list) {
    if (!append(*list)) return bad("attention_layers");
  } else {
    for (int64_t i = 0; i < layers; ++i) out.push_back(i % 2 == 0 ? "global" : "local");
  }
  if (static_cast<int64_t>(out.size()) != layers)
    config.complain(Refusal::kRange,
                    "attention_types describe " +
                        (static_cast<int64_t>(out.size()) > layers ? std::string("more")
                                                                   : std::to_string(out.size())) +
                        " layers, num_layers is " + std::to_string(layers));
  return out;
}

Result<DecoderConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  const DecoderKeys keys{.family = "gpt_neo",
                         .num_hidden_layers = "num_layers",
                         .num_attention_heads = "num_heads",
                         .num_key_value_heads = "",
                         .head_dim = "",
                         .norm_eps = "layer_norm_epsilon",
                         .hidden_act = "activation_function",
                         .layer_norm = true,
                         .wide_by_default = true,
                         .rotates = false};
  DecoderConfig out = read_decoder(config, checkpoint, keys);
  out.names = {"transformer.",
               "transformer.wte",
               "transformer.h.",
               "transformer.ln_f",
               "lm_head",
               "transformer.wpe",
               {".attn.attention.bias", ".attn.attention.masked_bias"}};  // causal masks
  const int64_t window = config.integer("window_size", "", 1, int64_t{1} << 31);
  const std::vector<std::string> types = attention_layers(config, out.info.num_hidden_layers);
  for (size_t i = 0; i < std::min(types.size(), out.windows.size()); ++i) {
    if (types[i] != "global" && types[i] != "local")
      config.unsupported("attention type '" + escape_for_terminal(types[i], 64) + "'");
    out.windows[i] = types[i] == "local" ? window : 0;
  }
  out.info.config["window_size"] = window;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId build_layer(DecoderLayer& layer, ValueId x) {
  const int64_t hidden = layer.config().info.hidden_size;
  const auto project = [&](ValueId in, const char* name, const std::string& module, bool bias) {
    return layer.linear(in, {name, "attn.attention." + module, "", {hidden, hidden}, bias});
  };
  const ValueId h = layer.norm(x, "attention_norm", "ln_1", "");
  const ValueId q = project(h, "attention.q", "q_proj", false),
                k = project(h, "attention.k", "k_proj", false),
                v = project(h, "attention.v", "v_proj", false);
  const ValueId o = project(layer.attend(q, k, v, {.scale = 1}), "attention.o", "out_proj", true);
  x = layer.add(x, o, "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "ln_2", "");
  return layer.add(x, layer.plain_mlp(m, "mlp.c_fc", "mlp.c_proj"), "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const DecoderConfig config, read_config(checkpoint));
  return build_decoder(checkpoint, config, options, build_layer);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(DecoderConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& gpt_neo_family() {
  static const Family kFamily = {"gpt_neo", {"gpt_neo"}, {}, read_info, build};
  return kFamily;
}

}  // namespace pome
