// The part of a configuration that decoders share.
#include <algorithm>

#include "models/blocks.h"
#include "models/stored_quantisation.h"

namespace pome {

namespace {

void read_heads(ConfigReader& config, const DecoderKeys& keys, ModelInfo* info) {
  info->num_key_value_heads = config.maybe_int(keys.num_key_value_heads, "attention.head_count_kv")
                                  .value_or(info->num_attention_heads);
  if (info->num_key_value_heads < 1 || info->num_attention_heads % info->num_key_value_heads != 0) {
    config.complain(Refusal::kRange, std::string(keys.num_attention_heads) + " " +
                                         std::to_string(info->num_attention_heads) +
                                         " must be a multiple of num_key_value_heads " +
                                         std::to_string(info->num_key_value_heads) +
                                         (config.is_gguf() || config.names(keys.num_key_value_heads)
                                              ? ""
                                              : ", which the family assumes where none is given"));
    info->num_key_value_heads = info->num_attention_heads;
  }
  const auto head_dim = config.maybe_int(keys.head_dim, "attention.key_length");
  info->head_dim = head_dim.value_or(info->hidden_size / info->num_attention_heads);
  if (!head_dim && info->hidden_size % info->num_attention_heads != 0)
    config.complain(Refusal::kRange,
                    std::string(keys.hidden_size) + " " + std::to_string(info->hidden_size) +
                        " is not a multiple of " + std::string(keys.num_attention_heads) + " " +
                        std::to_string(info->num_attention_heads) +
                        (keys.head_dim.empty() ? "" : " and there is no head_dim"));
  const int64_t least = keys.rotates ? 2 : 1;
  if (info->head_dim < least || info->head_dim > 4096) {
    config.complain(Refusal::kRange,
                    "head_dim " + std::to_string(info->head_dim) + " is out of range");
    info->head_dim = least;
  }
  if (const auto value_dim = config.maybe_int("", "attention.value_length");
      value_dim && *value_dim != info->head_dim)
    config.unsupported("value heads of another size than key heads");
}

void read_gguf_identity(ConfigReader& config, const Checkpoint& checkpoint, ModelInfo* info) {
  const CheckpointTensor* embedding = checkpoint.find("token_embd.weight");
  info->vocab_size = embedding && embedding->shape.size() == 2 ? embedding->shape[0] : 0;
  const std::string rows = std::to_string(info->vocab_size) + " rows of token_embd.weight";
  const auto declared = config.maybe_int("", "vocab_size");
  if (declared && info->vocab_size && *declared != info->vocab_size)
    config.complain(Refusal::kRange, config.prefix() + ".vocab_size " + std::to_string(*declared) +
                                         " differs from the " + rows);
  const size_t tokens = checkpoint.tokenizer.tokens.size();
  if (tokens && info->vocab_size && static_cast<int64_t>(tokens) != info->vocab_size)
    config.complain(Refusal::kRange, std::to_string(tokens) + " tokens but " + rows);
  info->tie_word_embeddings = !checkpoint.find("output.weight");
  if (const auto name = checkpoint.gguf.find("general.name");
      name != checkpoint.gguf.end() && name->is_string())
    info->name = name->get<std::string>();
}

void read_width(ConfigReader& config, const Checkpoint& checkpoint, const DecoderKeys& keys,
                ModelInfo* info) {
  constexpr const char* kGguf = "feed_forward_length";
  const bool named = config.maybe_int(keys.intermediate_size, kGguf).has_value();
  info->intermediate_size = named || !keys.wide_by_default
                                ? config.integer(keys.intermediate_size, kGguf, 1, 1 << 22)
                                : 4 * info->hidden_size;
  // llama.cpp's converter writes four times the embedding for GPT-2 and Phi-2, whatever the width.
  const CheckpointTensor* up = checkpoint.find("blk.0.ffn_up.weight");
  if (config.is_gguf() && keys.layer_norm && up && up->shape.size() == 2 &&
      info->intermediate_size == 4 * info->hidden_size)
    info->intermediate_size = up->shape[0];
}

}  // namespace

DecoderConfig read_decoder(ConfigReader& config, const Checkpoint& checkpoint,
                           const DecoderKeys& keys) {
  DecoderConfig out;
  ModelInfo& info = out.info;
  info.family = keys.family;
  info.architecture = config.is_gguf() ? config.prefix() : std::string(keys.family);
  info.hidden_size = config.integer(keys.hidden_size, "embedding_length", 1, 1 << 20);
  info.num_hidden_layers = config.integer(keys.num_hidden_layers, "block_count", 1, 1 << 14);
  info.num_attention_heads =
      config.integer(keys.num_attention_heads, "attention.head_count", 1, 1 << 14);
  info.max_position_embeddings =
      config.integer(keys.max_position_embeddings, "context_length", 1, int64_t{1} << 31);
  out.layer_norm = keys.layer_norm;
  out.norm_eps = config.positive(
      keys.norm_eps,
      keys.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
      keys.layer_norm ? std::optional(1e-5) : std::nullopt);
  read_width(config, checkpoint, keys, &info);
  out.rotates = keys.rotates;
  if (!keys.latent_heads) {
    read_heads(config, keys, &info);
    RopeKeys rope = keys.rope;
    rope.head_dim = info.head_dim;
    if (keys.rotates) out.rope = read_rope(config, rope);
  }
  out.windows.assign(static_cast<size_t>(info.num_hidden_layers), 0);
  if (config.is_gguf()) {
    read_gguf_identity(config, checkpoint, &info);
  } else {
    info.vocab_size = config.integer("vocab_size", "", 1, int64_t{1} << 24);
    info.tie_word_embeddings = config.maybe_bool("tie_word_embeddings", "").value_or(false);
    check_stored_quantisation(config, keys.quant_method);
  }
  const std::string act =
      config.maybe_string(keys.hidden_act, "").value_or(config.class_default(keys.hidden_act));
  const auto known = HiddenAct::parse(act);
  if (!known)
    config.unsupported(std::string(keys.hidden_act) + " '" + escape_for_terminal(act, 64) + "'");
  out.act = known.value_or(HiddenAct());
  // Readers of GGUF know the activation by the architecture.
  if (!config.is_gguf() && known &&
      known != HiddenAct::parse(config.class_default(keys.hidden_act)))
    info.gguf.obstacles.push_back(std::string(keys.hidden_act) + " '" +
                                  escape_for_terminal(act, 64) + "'");
  if (info.name.empty()) info.name = folder_name(checkpoint.path);
  info.config[keys.layer_norm ? "layer_norm_eps" : "rms_norm_eps"] = out.norm_eps;
  info.config["hidden_act"] = act;
  if (keys.rotates && !keys.latent_heads) note_rope(&out);
  return out;
}

void note_rope(DecoderConfig* out) {
  ModelInfo& info = out->info;
  info.config["rope_theta"] = out->rope.theta;
  info.config["rope_type"] = out->rope.type;
  info.config["rotary_dim"] = out->rope.rotary_dim;
  if (out->rope.type == "dynamic")
    info.config[kStretchedPositions] = static_cast<int64_t>(
        std::min(static_cast<double>(info.max_position_embeddings) * out->rope.factor, 1e9));
}

void refuse_true(ConfigReader& config, const char* key) {
  if (config.maybe_bool(key, "").value_or(false))
    config.unsupported(std::string(key) + " in this family");
}

int64_t read_window(ConfigReader& config, std::string_view hf, std::string_view gguf) {
  const auto window = config.maybe_int(hf, gguf);
  if (!window) return 0;
  if (*window > 0 || (config.is_gguf() && *window == 0)) return *window;
  config.complain(Refusal::kRange,
                  std::string(hf) + " must be positive or null, is " + std::to_string(*window));
  return 0;
}

std::vector<bool> read_windows(ConfigReader& config, int64_t window,
                               const std::function<bool(int64_t)>& slides, DecoderConfig* out) {
  const int64_t layers = out->info.num_hidden_layers;
  std::vector<bool> sliding(static_cast<size_t>(layers), false);
  const Json* types = config.value("layer_types");
  if (types && (!types->is_array() || static_cast<int64_t>(types->size()) != layers)) {
    config.complain(Refusal::kRange, "layer_types must list num_hidden_layers names");
    return sliding;
  }
  for (size_t layer = 0; layer < sliding.size(); ++layer) {
    if (!types) {
      sliding[layer] = slides(static_cast<int64_t>(layer));
      continue;
    }
    const Json& type = (*types)[layer];
    const std::string name = type.is_string() ? type.get<std::string>() : dump_json(type);
    sliding[layer] = name == "sliding_attention";
    if (sliding[layer] || name == "full_attention") continue;
    config.unsupported("layer type '" + escape_for_terminal(name, 64) + "'");
    return sliding;
  }
  if (!config.is_gguf() && window == 0 && std::count(sliding.begin(), sliding.end(), true))
    config.complain(Refusal::kRange,
                    "there are sliding layers, but no sliding_window (it is null or switched off)");
  const bool limits = window > 0 && window < positions_of(out->info, INT64_MAX);
  for (size_t layer = 0; layer < sliding.size(); ++layer)
    out->windows[layer] = sliding[layer] && limits ? window : 0;
  if (limits) out->info.config["sliding_window"] = window;
  return sliding;
}

void read_uniform_window(ConfigReader& config, int64_t window, DecoderConfig* out) {
  const std::vector<bool> kinds = read_windows(
      config, window, [&](int64_t) { return window > 0; }, out);
  for (const bool sliding : kinds)
    if (sliding != (window > 0))
      return config.unsupported("layer_types that differ from sliding_window in this family");
}

}  // namespace pome
