// Gemma 1, 2 and 3 (Gemma Team 2024, arXiv 2403.08295, 2408.00118; 2025, arXiv 2503.19786).
// All: norm gains stored minus one, embeddings scaled by sqrt(hidden), GeGLU, head_dim of its own.
// 2: norms behind attention and MLP too, soft-caps, local layers between global ones.
// 3: norms on q and k instead of the caps, and another rope base for local layers.
#include <cmath>

#include "models/blocks.h"
#include "models/family.h"

namespace pome {

namespace {

constexpr std::string_view kNames[] = {"gemma", "gemma2", "gemma3"};
constexpr std::string_view kClassDefaults[] = {
    R"({
  "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
  "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256,
  "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
  "tie_word_embeddings": true})",
    R"({
  "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
  "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
  "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
  "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
  "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0})",
    R"({
  "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
  "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
  "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 131072,
  "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "query_pre_attn_scalar": 256,
  "sliding_window": 4096, "sliding_window_pattern": 6, "rope_local_base_freq": 10000.0})"};

struct GemmaConfig : DecoderConfig {
  int generation = 1;
  double attention_scale = 0, attention_softcap = 0;
  double gguf_query_factor = 1;  // of the queries in a GGUF file, whose readers scale by another
  std::vector<bool> local;       // by layer: takes local_rope
};

// Gemma 3 has rope keys for its global and its local layers, flat or by layer type.
void read_ropes(ConfigReader& config, GemmaConfig* out) {
  out->local_rope = RopeConfig();
  RopeKeys global{.head_dim = out->info.head_dim, .theta = 1e6};
  RopeKeys local{.head_dim = out->info.head_dim, .theta_key = "rope_local_base_freq"};
  if (config.is_gguf()) {
    out->rope = read_rope(config, global);
    out->local_rope->rotary_dim = out->rope.rotary_dim;
    out->local_rope->theta = config.positive("", "rope.freq_base_swa", 10000.0);
    return;
  }
  // Scaling that is not told apart by layer type is that of the global layers.
  const Json* scaling = config.value("rope_scaling");
  const Json* nested = config.value("rope_parameters");
  const Json none = Json::object();
  if (nested && !nested->is_object())
    return config.complain(Refusal::kType, "rope_parameters must be an object");
  if (nested && !nested->empty() && !nested->contains("full_attention") &&
      !nested->contains("sliding_attention"))
    return config.unsupported("rope_parameters that do not name layer types in gemma3");
  const auto of_kind = [&](const char* kind) -> Json {
    return nested && nested->contains(kind) && (*nested)[kind].is_object() ? (*nested)[kind] : none;
  };
  Json full = of_kind("full_attention");
  const Json sliding = of_kind("sliding_attention");
  if (scaling && !scaling->is_object())
    return config.complain(Refusal::kType, "rope_scaling must be an object");
  if (scaling) full.update(*scaling);
  global.theta = config.positive("rope_theta", "", 1e6);
  local.theta = config.positive("rope_local_base_freq", "");
  global.parameters = &full;
  local.parameters = &sliding;
  out->rope = read_rope(config, global);
  out->local_rope = read_rope(config, local);
}

// Which layers are local, and their window.
void read_locals(ConfigReader& config, GemmaConfig* out) {
  int64_t period = 2;
  if (out->generation == 3)
    period = config.is_gguf() ? 6 : config.maybe_int("sliding_window_pattern", "").value_or(6);
  // GGUF: a period, or one truth value for every layer.
  const auto stored = config.object().find(config.prefix() + ".attention.sliding_window_pattern");
  std::vector<bool> listed;
  if (config.is_gguf() && stored != config.object().end()) {
    if (stored->is_array())
      for (const Json& value : *stored) listed.push_back(value == true || value == 1);
    else
      period = config.maybe_int("", "attention.sliding_window_pattern").value_or(period);
    if (stored->is_array() && static_cast<int64_t>(listed.size()) != out->info.num_hidden_layers)
      return config.complain(Refusal::kRange, "sliding_window_pattern must have a value per layer");
  }
  if (period < 1)
    return config.complain(Refusal::kRange, "sliding_window_pattern must be at least 1");
  const int64_t window = config.is_gguf()
                             ? config.maybe_int("", "attention.sliding_window").value_or(4096)
                             : read_window(config);
  // Layers differ in their rope even when the window covers everything.
  std::vector<bool>& local = out->local;
  local = read_windows(
      config, window,
      [&](int64_t layer) {
        return listed.empty() ? (layer + 1) % period != 0 : listed[static_cast<size_t>(layer)];
      },
      out);
  const auto repeats = [&](size_t every) {
    for (size_t layer = 0; layer < local.size(); ++layer)
      if (local[layer] != ((layer + 1) % every != 0)) return false;
    return true;
  };
  size_t every = 1;
  while (every <= local.size() && !repeats(every)) ++every;
  if (every > local.size() + 1 || !repeats(every))
    out->info.gguf.obstacles.push_back("local layers that do not come in turns");
  if (every != (out->generation == 3 ? 6u : 2u))
    out->info.gguf.values["attention.sliding_window_pattern"] = static_cast<int64_t>(every);
}

void read_second_and_third(ConfigReader& config, GemmaConfig* out) {
  const bool third = out->generation == 3;
  const double scalar = config.positive(
      "query_pre_attn_scalar", "",
      config.is_gguf() ? std::optional(static_cast<double>(out->info.head_dim)) : std::nullopt);
  out->attention_scale = 1 / std::sqrt(scalar);
  // llama.cpp knows the largest models, which scale by hidden_size / num_attention_heads, by their
  // number of layers.
  if (config.is_gguf() && out->info.num_hidden_layers == (third ? 62 : 46))
    out->attention_scale = 1 / std::sqrt(static_cast<double>(out->info.hidden_size) /
                                         static_cast<double>(out->info.num_attention_heads));
  const bool largest = out->info.num_hidden_layers == (third ? 62 : 46);
  const double expected = largest ? static_cast<double>(out->info.hidden_size) /
                                        static_cast<double>(out->info.num_attention_heads)
                                  : static_cast<double>(out->info.head_dim);
  const double factor = out->attention_scale * std::sqrt(expected);
  if (std::fabs(factor - 1) > 1e-6) {
    if (third)  // its norm behind the queries takes the factor away
      out->info.gguf.obstacles.push_back("query_pre_attn_scalar " + std::to_string(scalar));
    else
      out->gguf_query_factor = factor;
  }
  const auto cap = [&](const char* key, double absent) {
    const double value =
        config.maybe_number(key, key).value_or(config.is_gguf() && !third ? absent : 0);
    if (value < 0) config.complain(Refusal::kRange, std::string(key) + " must not be negative");
    return value;
  };
  out->attention_softcap = cap("attn_logit_softcapping", 50);
  out->final_logit_softcapping = cap("final_logit_softcapping", 30);
  if (out->final_logit_softcapping > 0 && config.names("with_images"))
    config.unsupported(
        "final_logit_softcapping beside images, where releases of transformers disagree");
  // Its class has the key, but the model makes no use of it.
  if (third && out->attention_softcap > 0)
    config.unsupported("attn_logit_softcapping in a gemma3 model");
  read_locals(config, out);
}

// The language model of a Gemma 3 with images: text_config, and the tensors
// behind "language_model". The towers are left behind.
Checkpoint language_part(const Checkpoint& checkpoint) {
  Checkpoint out = checkpoint;
  const auto text = checkpoint.config.find("text_config");
  if (text == checkpoint.config.end() || !text->is_object()) return out;
  out.config = *text;
  for (const char* key : {"tie_word_embeddings", "quantization_config"})
    if (checkpoint.config.contains(key)) out.config[key] = checkpoint.config[key];
  out.config["with_images"] = true;
  if (checkpoint.format == "mlc") return out;  // has names of its own
  const auto starts = [](const std::string& name, std::string_view prefix) {
    return name.compare(0, prefix.size(), prefix) == 0;
  };
  std::erase_if(out.tensors, [&](const CheckpointTensor& tensor) {
    for (const char* prefix : {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                               "model.multi_modal_projector."})
      if (starts(tensor.name, prefix)) return true;
    return false;
  });
  for (CheckpointTensor& tensor : out.tensors) {
    // Since transformers 4.52 the whole language model stands below "model".
    if (starts(tensor.name, "language_model."))
      tensor.name = tensor.name.substr(15);
    else if (starts(tensor.name, "model.language_model."))
      tensor.name = "model." + tensor.name.substr(21);
  }
  return out;
}

bool has_language_part(const Checkpoint& checkpoint) {
  return checkpoint.config.is_object() && checkpoint.config.contains("text_config");
}

void read_first(ConfigReader& config, GemmaConfig* out) {
  if (config.is_gguf()) return;
  // The first release says "gelu" and means its approximation by tanh.
  if (config.maybe_string("hidden_act", "").value_or("") == "gelu")
    out->act = *HiddenAct::parse("gelu_pytorch_tanh");
  const auto second = config.maybe_string("hidden_activation", "");
  if (second && HiddenAct::parse(*second) != out->act)
    config.unsupported("hidden_activation '" + escape_for_terminal(*second, 64) +
                       "' beside another hidden_act");
}

Result<GemmaConfig> read_config(const Checkpoint& checkpoint, int generation) {
  ConfigReader config(checkpoint, kClassDefaults[generation - 1]);
  DecoderKeys keys{.family = kNames[generation - 1]};
  keys.hidden_act = generation == 1 ? "hidden_act" : "hidden_activation";
  keys.rotates = generation < 3;  // the third has two ropes, read below
  GemmaConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  out.generation = generation;
  out.rotates = true;
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  for (const char* key : {"use_bidirectional_attention", "mlp_bias"}) refuse_true(config, key);
  out.gain_minus_one = true;
  out.embedding_scale = std::sqrt(static_cast<float>(out.info.hidden_size));
  out.local.assign(static_cast<size_t>(out.info.num_hidden_layers), false);
  if (generation == 1) read_first(config, &out);
  if (generation == 3) {
    read_ropes(config, &out);
    note_rope(&out);
    out.info.config["rope_local_base_freq"] = out.local_rope->theta;
  }
  if (generation > 1) read_second_and_third(config, &out);
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

ValueId build_layer(DecoderLayer& l, const GemmaConfig& c, ValueId x) {
  const bool local = c.generation == 3 && c.local[static_cast<size_t>(l.index())];
  const DecoderLayer::Attention spec{.rotary = local ? &l.local_rotary() : &l.rotary(),
                                     .scale = c.attention_scale,
                                     .softcap = c.attention_softcap,
                                     .head_norm = c.generation == 3 ? "norm" : ""};
  if (c.generation == 1) return l.pre_norm_layer(x, spec);
  ValueId h = l.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  h = l.norm(l.attention(h, spec), "attention_post_norm", "post_attention_layernorm",
             "post_attention_norm");
  x = l.add(x, h, "attention_residual");
  h = l.norm(x, "mlp_norm", "pre_feedforward_layernorm", "ffn_norm");
  h = l.norm(l.gated_mlp(h), "mlp_post_norm", "post_feedforward_layernorm", "post_ffw_norm");
  return l.add(x, h, "output");
}

template <int kGeneration>
Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  if (kGeneration == 3 && has_language_part(checkpoint)) {
    const Checkpoint text = language_part(checkpoint);
    if (!has_language_part(text)) return build<kGeneration>(text, options);
  }
  POME_ASSIGN_OR_RETURN(const GemmaConfig config, read_config(checkpoint, kGeneration));
  POME_ASSIGN_OR_RETURN(
      Graph graph, build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
        return build_layer(layer, config, x);
      }));
  for (Constant& constant : graph.constants)
    if (constant.gguf_name.ends_with(".attn_q.weight") ||
        constant.gguf_name.ends_with(".attn_q.bias"))
      constant.gguf_place.factor = static_cast<float>(config.gguf_query_factor);
  return graph;
}

template <int kGeneration>
Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  if (kGeneration == 3 && has_language_part(checkpoint)) {
    const Checkpoint text = language_part(checkpoint);
    if (!has_language_part(text)) return read_info<kGeneration>(text);
  }
  POME_ASSIGN_OR_RETURN(GemmaConfig config, read_config(checkpoint, kGeneration));
  return std::move(config.info);
}

}  // namespace

const Family& gemma_family() {
  static const Family kFamily = {"gemma", {"gemma"}, {"gemma"}, read_info<1>, build<1>};
  return kFamily;
}
const Family& gemma2_family() {
  static const Family kFamily = {"gemma2", {"gemma2"}, {"gemma2"}, read_info<2>, build<2>};
  return kFamily;
}
const Family& gemma3_family() {
  static const Family kFamily = {
      "gemma3", {"gemma3_text", "gemma3"}, {"gemma3"}, read_info<3>, build<3>};
  return kFamily;
}

}  // namespace pome
