// GPT-Neo (Black et al. 2021, EleutherAI; also TinyStories, Eldan and Li 2023, arXiv 2305.07759):
// as GPT-2, with plain projections without bias for q, k and v, scores that are not scaled, and
// layers that see everything in turn with layers that see a window.
#include "models/family.h"
#include "models/gpt_common.h"
#include "models/models.h"

namespace pome {

namespace {

struct GptNeoConfig : GptConfig {
  std::vector<int64_t> windows;  // by layer; 0 sees everything
};

// attention_types: [[["global", "local"], 6], ..] is that pattern six times; attention_layers is
// the same written out.
std::vector<std::string> attention_layers(ConfigReader& config, int64_t layers) {
  std::vector<std::string> out;
  const auto bad = [&](const char* key) {
    config.complain(Refusal::kType, std::string(key) + " is not a list of layer types");
    return std::vector<std::string>{};
  };
  const auto append = [&](const Json& names) {
    if (!names.is_array()) return false;
    for (const Json& name : names) {
      if (!name.is_string()) return false;
      out.push_back(name.get<std::string>());
    }
    return true;
  };
  const Json& all = config.object();
  if (const auto types = all.find("attention_types"); types != all.end() && !types->is_null()) {
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
  } else if (const auto list = all.find("attention_layers");
             list != all.end() && !list->is_null()) {
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

Result<GptNeoConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  GptKeys keys;
  keys.num_hidden_layers = "num_layers";
  keys.num_attention_heads = "num_heads";
  keys.layer_norm_eps = "layer_norm_epsilon";
  keys.activation = "activation_function";
  keys.tie_word_embeddings = true;
  GptNeoConfig out{read_gpt_config(config, checkpoint, "gpt_neo", keys), {}};
  int64_t window = 256;
  if (config.maybe_int("window_size", ""))
    window = config.integer("window_size", "", 1, int64_t{1} << 31);
  for (const std::string& type : attention_layers(config, out.info.num_hidden_layers)) {
    if (type != "global" && type != "local")
      config.unsupported("attention type '" + escape_for_terminal(type, 64) + "'");
    out.windows.push_back(type == "local" ? window : 0);
  }
  out.info.config["window_size"] = window;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

ValueId build_layer(const GptNeoConfig& c, WeightSet& weights, GraphBuilder& b, int32_t layer,
                    const std::string& prefix, ValueId x, ValueId position) {
  const std::string number = std::to_string(layer) + ".";
  GptLayer l(c, weights, b, {"layers." + number, prefix + "h." + number, ""});
  b.scope("layers." + number);
  const int64_t hidden = c.info.hidden_size;
  const auto project = [&](ValueId in, const char* name, const char* module, bool bias) {
    return l.linear(in, {name, std::string("attn.attention.") + module, "", hidden, hidden, bias});
  };
  const ValueId h = l.norm(x, "attention_norm", "ln_1", "");
  const ValueId q = project(h, "attention.q", "q_proj", false),
                k = project(h, "attention.k", "k_proj", false),
                v = project(h, "attention.v", "v_proj", false);
  const AttentionOp op{1.0, c.windows[static_cast<size_t>(layer)]};
  const ValueId o =
      project(l.attention(layer, q, k, v, position, op), "attention.o", "out_proj", true);
  x = b.binary(BinaryKind::kAdd, x, o, "attention_residual");
  const ValueId m = l.norm(x, "mlp_norm", "ln_2", "");
  const ValueId down = l.mlp(m, {"", "mlp.c_fc", ""}, {"", "mlp.c_proj", ""});
  x = b.binary(BinaryKind::kAdd, x, down, "output");
  b.end_layer(x);
  b.scope("");
  return x;
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const GptNeoConfig config, read_config(checkpoint));
  GraphBuilder b(config.info);
  WeightSet weights(checkpoint, b);
  const std::string prefix = checkpoint.find("wte.weight") ? "" : "transformer.";
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId table = weights.get({"embedding.weight",
                                     prefix + "wte.weight",
                                     "",
                                     {config.info.vocab_size, config.info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  x = add_learned_positions(config, weights, b, x, position, prefix + "wpe.weight", "");
  for (int32_t layer = 0; layer < config.info.num_hidden_layers; ++layer)
    x = build_layer(config, weights, b, layer, prefix, x, position);
  x = GptLayer(config, weights, b, {"", prefix, ""}).norm(x, "norm", "ln_f", "");
  const ValueId logits = add_head(config, weights, b, x, table, "lm_head");
  weights.ignore(".attn.attention.bias");  // causal masks that were saved as buffers
  weights.ignore(".attn.attention.masked_bias");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(GptNeoConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& gpt_neo_family() {
  static const Family kFamily = {"gpt_neo", {"gpt_neo"}, {}, read_info, build};
  return kFamily;
}

}  // namespace pome
