// Gemma 1, 2 and 3 (Gemma Team 2024, arXiv 2403.08295, 2408.00118; 2025, arXiv 2503.19786).
// All: norm gains stored minus one, embeddings scaled by sqrt(hidden), GeGLU, head_dim of its own.
// 2: norms behind attention and MLP too, soft-caps, local layers between global ones.
// 3: norms on q and k instead of the caps, and another rope base for local layers.
#include <cmath>

#include "models/blocks.h"
#include "models/family.h"
#include "tensor/half.h"

namespace pome {

namespace {

struct GemmaConfig : DecoderConfig {
  int generation = 1;
  double attention_scale = 0, attention_softcap = 0;
  RopeConfig local_rope;
  std::vector<bool> local;  // by layer: takes local_rope
  int64_t context = 0;
};

// The factor is rounded to the type of the weights, as the models were trained with it.
double embedding_scale(const Checkpoint& checkpoint, int64_t hidden_size) {
  const float scale = std::sqrt(static_cast<float>(hidden_size));
  const CheckpointTensor* table = checkpoint.find("model.embed_tokens.weight");
  if (!table) return scale;
  if (table->encoding.kind == EncodingKind::kBF16) return bf16_to_f32(f32_to_bf16(scale));
  if (table->encoding.kind == EncodingKind::kF16) return round_to_f16(scale);
  return scale;
}

// Gemma 3 has rope keys for its global and its local layers, flat or by layer type.
void read_ropes(ConfigReader& config, GemmaConfig* out) {
  const int64_t dim = out->info.head_dim;
  if (config.is_gguf()) {
    out->local_rope.rotary_dim = out->rope.rotary_dim;
    out->local_rope.theta = config.positive("", "rope.freq_base_swa", 10000.0);
    return;
  }
  const Json& all = config.object();
  const auto nested = all.find("rope_parameters");
  const auto by_type = [&](const char* type) -> std::optional<RopeConfig> {
    if (nested == all.end() || !nested->is_object() || !nested->contains(type)) return {};
    const Json wrapped = {{"rope_parameters", (*nested)[type]}};
    return read_rope(config, dim, &wrapped);
  };
  Json keys = Json::object();
  keys["rope_theta"] = config.positive("rope_local_base_freq", "", 10000.0);
  out->local_rope = by_type("sliding_attention").value_or(read_rope(config, dim, &keys));
  if (const auto global = by_type("full_attention")) {
    out->rope = *global;
  } else {
    keys = all;
    if (!keys.contains("rope_theta")) keys["rope_theta"] = 1e6;
    out->rope = read_rope(config, dim, &keys);
  }
}

void read_second_and_third(ConfigReader& config, GemmaConfig* out) {
  const bool third = out->generation == 3;
  const double scalar =
      config.positive("query_pre_attn_scalar", "", config.is_gguf() ? out->info.head_dim : 256.0);
  out->attention_scale = 1 / std::sqrt(scalar);
  // llama.cpp knows the largest models, which scale by hidden_size / num_attention_heads, by their
  // number of layers.
  if (config.is_gguf() && out->info.num_hidden_layers == (third ? 62 : 46))
    out->attention_scale = 1 / std::sqrt(static_cast<double>(out->info.hidden_size) /
                                         static_cast<double>(out->info.num_attention_heads));
  const auto cap = [&](const char* hf, const char* gguf, double absent) {
    // Older files leave the keys out, null switches a cap off.
    const bool named = config.is_gguf() ? false : config.object().contains(hf);
    const double value = config.maybe_number(hf, gguf).value_or(named || third ? 0 : absent);
    if (value < 0) config.complain(Refusal::kRange, std::string(hf) + " must not be negative");
    return value;
  };
  out->attention_softcap = cap("attn_logit_softcapping", "attn_logit_softcapping", 50);
  out->final_logit_softcapping = cap("final_logit_softcapping", "final_logit_softcapping", 30);
  int64_t period = third ? 6 : 2;
  for (const char* key : {"sliding_window_pattern", "_sliding_window_pattern"})
    period = config.maybe_int(key, "").value_or(period);
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
  const auto local = [&](int64_t layer) {
    return listed.empty() ? (layer + 1) % period != 0 : listed[static_cast<size_t>(layer)];
  };
  // With a window that covers everything, layers still differ in their rope: keep the kinds.
  GemmaConfig kinds = *out;
  kinds.info.max_position_embeddings = int64_t{1} << 40;
  read_windows(config, 1, local, &kinds);
  for (const int64_t window : kinds.windows) out->local.push_back(window > 0);
  read_windows(config,
               config.maybe_int("sliding_window", "attention.sliding_window").value_or(4096), local,
               out);
}

// The language model of a Gemma 3 with images: text_config, with what its class fills in, and the
// tensors behind "language_model". The towers are left behind.
Checkpoint language_part(const Checkpoint& checkpoint) {
  Checkpoint out = checkpoint;
  const auto text = checkpoint.config.find("text_config");
  if (text == checkpoint.config.end() || !text->is_object()) return out;
  out.config = {{"vocab_size", 262208},     {"num_attention_heads", 8},
                {"num_key_value_heads", 4}, {"max_position_embeddings", 131072},
                {"hidden_size", 2304},      {"intermediate_size", 9216},
                {"num_hidden_layers", 26}};
  out.config.update(*text);
  if (checkpoint.config.contains("quantization_config"))
    out.config["quantization_config"] = checkpoint.config["quantization_config"];
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

Result<GemmaConfig> read_config(const Checkpoint& checkpoint, int generation) {
  static constexpr std::string_view kNames[] = {"gemma", "gemma2", "gemma3"};
  ConfigReader config(checkpoint);
  DecoderDefaults defaults{.family = kNames[generation - 1],
                           .head_dim = 256,
                           .tie_word_embeddings = true,
                           .activation_key = "hidden_activation",
                           .activation = "gelu_pytorch_tanh"};
  GemmaConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, defaults);
  out.generation = generation;
  if (generation == 1 && !config.is_gguf() && !config.maybe_string("hidden_activation", "")) {
    // The first release says "gelu" and means its approximation by tanh.
    const std::string act = config.maybe_string("hidden_act", "").value_or("gelu");
    if (act != "gelu" && act != "gelu_pytorch_tanh")
      config.unsupported("hidden_act '" + escape_for_terminal(act, 64) + "'");
  }
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(false);
  for (const char* key : {"use_bidirectional_attention", "mlp_bias"}) refuse_true(config, key);
  out.gain_minus_one = true;
  out.embedding_scale = embedding_scale(checkpoint, out.info.hidden_size);
  out.local.assign(static_cast<size_t>(out.info.num_hidden_layers), false);
  if (generation > 1) {
    out.local.clear();
    read_second_and_third(config, &out);
  }
  if (generation == 3) {
    read_ropes(config, &out);
    out.info.config["rope_theta"] = out.rope.theta;
    out.info.config["rope_type"] = out.rope.type;
    out.info.config["rope_local_base_freq"] = out.local_rope.theta;
  }
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

class GemmaBody final : public DecoderBody {
 public:
  explicit GemmaBody(const GemmaConfig& config) : c_(config) {}

  Status begin(GraphBuilder& builder, WeightSet&) override {
    global_ = make_rotary(builder, "rope.inverse_frequencies", c_.rope);
    if (c_.generation == 3)
      local_ = make_rotary(builder, "rope.local.inverse_frequencies", c_.local_rope);
    return {};
  }

  ValueId layer(DecoderLayer& l, ValueId x) override {
    const bool local = c_.generation == 3 && c_.local[static_cast<size_t>(l.index())];
    const DecoderLayer::Attention spec{.rotary = local ? &local_ : &global_,
                                       .scale = c_.attention_scale,
                                       .softcap = c_.attention_softcap,
                                       .qk_norm = c_.generation == 3};
    if (c_.generation == 1) return l.pre_norm_layer(x, spec);
    ValueId h = l.norm(x, "attention_norm", "input_layernorm", "attn_norm");
    h = l.norm(l.attention(h, spec), "attention_post_norm", "post_attention_layernorm",
               "post_attention_norm");
    x = l.add(x, h, "attention_residual");
    h = l.norm(x, "mlp_norm", "pre_feedforward_layernorm", "ffn_norm");
    h = l.norm(l.gated_mlp(h), "mlp_post_norm", "post_feedforward_layernorm", "post_ffw_norm");
    return l.add(x, h, "output");
  }

 private:
  const GemmaConfig& c_;
  Rotary global_, local_;
};

template <int kGeneration>
Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  if (kGeneration == 3 && has_language_part(checkpoint)) {
    const Checkpoint text = language_part(checkpoint);
    if (!has_language_part(text)) return build<kGeneration>(text, options);
  }
  POME_ASSIGN_OR_RETURN(const GemmaConfig config, read_config(checkpoint, kGeneration));
  GemmaBody body(config);
  return build_decoder(checkpoint, config, body);
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
