// Configurations under Hugging Face's names, from what other formats say.
#include <algorithm>

#include "models/mlc_config.h"
#include "models/mlc_names.h"

namespace pome {

namespace {

Json to_json(const ConfigValue& value) {
  Json out;
  std::visit([&](const auto& v) { out = v; }, value);
  return out;
}

class FromGguf {
 public:
  explicit FromGguf(const ModelInfo& info) : info_(info) {}

  Result<Json> build() {
    sizes();
    if (info_.family == "gpt2") return std::move(out_);
    POME_RETURN_IF_ERROR(rope());
    if (info_.family.starts_with("gemma")) gemma();
    experts();
    return std::move(out_);
  }

 private:
  // Copies what was read under the name of the GGUF key behind the architecture.
  void take(const char* to, const char* gguf) {
    const auto found = info_.gguf.values.find(gguf);
    if (found != info_.gguf.values.end()) out_[to] = to_json(found->second);
  }
  void take_config(const char* key) {
    const auto found = info_.config.find(key);
    if (found != info_.config.end()) out_[key] = to_json(found->second);
  }

  void sizes() {
    const bool gpt2 = info_.family == "gpt2";
    out_["model_type"] = info_.family == "gemma3" ? "gemma3_text" : info_.family;
    out_["vocab_size"] = info_.vocab_size;
    out_[gpt2 ? "n_embd" : "hidden_size"] = info_.hidden_size;
    out_[gpt2 ? "n_inner" : "intermediate_size"] = info_.intermediate_size;
    out_[gpt2 ? "n_layer" : "num_hidden_layers"] = info_.num_hidden_layers;
    out_[gpt2 ? "n_head" : "num_attention_heads"] = info_.num_attention_heads;
    out_[gpt2 ? "n_positions" : "max_position_embeddings"] = info_.max_position_embeddings;
    out_["tie_word_embeddings"] = info_.tie_word_embeddings;
    const auto epsilon = info_.config.find("layer_norm_eps");
    if (gpt2 && epsilon != info_.config.end())
      out_["layer_norm_epsilon"] = to_json(epsilon->second);
    if (gpt2) return;
    out_["num_key_value_heads"] = info_.num_key_value_heads;
    out_["head_dim"] = info_.head_dim;
    for (const char* key : {"layer_norm_eps", "rms_norm_eps", "rope_theta", "sliding_window",
                            "use_parallel_residual"})
      take_config(key);
    if (!out_.contains("sliding_window")) out_["sliding_window"] = nullptr;
    const auto rotary = info_.config.find("rotary_dim");
    if (rotary == info_.config.end()) return;
    const double part = static_cast<double>(std::get<int64_t>(rotary->second)) /
                        static_cast<double>(info_.head_dim);
    if (info_.family == "gpt_neox") out_["rotary_pct"] = part;
    if (info_.family.starts_with("phi")) out_["partial_rotary_factor"] = part;
  }

  Status rope() {
    const GgufInfo& gguf = info_.gguf;
    const auto type = info_.config.find("rope_type");
    const std::string name =
        type == info_.config.end() ? "default" : std::get<std::string>(type->second);
    const auto freqs = gguf.vectors.find("rope_freqs.weight");
    if (freqs != gguf.vectors.end() &&
        std::any_of(freqs->second.begin(), freqs->second.end(), [](float f) { return f != 1; }))
      return unsupported("a configuration has no words for the rope factors of this GGUF file")
          .hint("convert from the original checkpoint, whose configuration names them");
    const auto shorter = gguf.vectors.find("rope_factors_short.weight");
    const auto longer = gguf.vectors.find("rope_factors_long.weight");
    if (shorter != gguf.vectors.end() && longer != gguf.vectors.end()) {
      take("original_max_position_embeddings", "rope.scaling.original_context_length");
      out_["rope_scaling"] = {{"rope_type", "longrope"},
                              {"short_factor", shorter->second},
                              {"long_factor", longer->second}};
      const auto factor = gguf.values.find("rope.scaling.attn_factor");
      if (factor != gguf.values.end())
        out_["rope_scaling"]["attention_factor"] = to_json(factor->second);
      return {};
    }
    if (name == "linear") {
      const auto factor = gguf.values.find("rope.scaling.factor");
      out_["rope_scaling"] = {
          {"rope_type", name},
          {"factor", factor == gguf.values.end() ? Json(1.0) : to_json(factor->second)}};
    } else if (name != "default") {
      return unsupported("rope type '" + name + "' of a GGUF file")
          .hint("convert from the original checkpoint");
    }
    return {};
  }

  void gemma() {
    if (info_.family == "gemma") return;
    take("sliding_window", "attention.sliding_window");
    take("attn_logit_softcapping", "attn_logit_softcapping");
    take("final_logit_softcapping", "final_logit_softcapping");
    out_["query_pre_attn_scalar"] = info_.head_dim;
    if (info_.family != "gemma3") return;
    take("rope_local_base_freq", "rope.freq_base_swa");
    take("sliding_window_pattern", "attention.sliding_window_pattern");
  }

  void experts() {
    const auto count = info_.config.find("num_experts");
    if (count == info_.config.end()) return;
    out_[info_.family == "mixtral" ? "num_local_experts" : "num_experts"] = to_json(count->second);
    take_config("num_experts_per_tok");
    if (info_.family == "mixtral") return;
    take_config("moe_intermediate_size");
    take("shared_expert_intermediate_size", "expert_shared_feed_forward_length");
    out_["decoder_sparse_step"] = 1;
    out_["norm_topk_prob"] = info_.family == "qwen3_moe";
  }

  const ModelInfo& info_;
  Json out_ = Json::object();
};

void rename(Json* config, const char* from, const char* to) {
  const auto found = config->find(from);
  if (found == config->end()) return;
  const Json value = *found;
  config->erase(from);
  if (!config->contains(to)) (*config)[to] = value;
}

}  // namespace

Result<Json> hf_config_of(const Checkpoint& checkpoint, const Graph& graph) {
  if (!checkpoint.config.is_object()) return FromGguf(graph.info).build();
  Json out = checkpoint.config;
  out.erase("quantization_config");
  // A head that is stored apart is none that is shared, whatever the configuration says.
  out["tie_word_embeddings"] = graph.info.tie_word_embeddings;
  if (const auto text = out.find("text_config"); text != out.end() && text->is_object())
    text->erase("quantization_config");
  return out;
}

Json config_from_mlc(const Json& chat) {
  const auto given = chat.find("model_config");
  Json out = given != chat.end() && given->is_object() ? *given : Json::object();
  if (const auto text = out.find("text_config"); text != out.end() && text->is_object()) {
    const Json inner = *text;
    out.erase("text_config");
    for (const auto& [key, value] : inner.items())
      if (!out.contains(key)) out[key] = value;
  }
  for (const char* key : {"model_type", "vocab_size", "bos_token_id", "eos_token_id"})
    if (chat.contains(key)) out[key] = chat[key];
  const auto is_type = [&](const char* type) {
    return out.contains("model_type") && out["model_type"] == type;
  };
  if (is_type("gemma3")) out["model_type"] = "gemma3_text";
  rename(&out, "position_embedding_base", "rope_theta");
  rename(&out, "sliding_window_size", "sliding_window");
  rename(&out, "context_window_size", is_type("gpt2") ? "n_positions" : "max_position_embeddings");
  // Numbers that say "none".
  for (const char* key : {"sliding_window", "rope_scaling", "weight_block_size"})
    if (out.contains(key) && (out[key].is_null() || (out[key].is_number() && out[key] <= 0)))
      out[key] = nullptr;
  return out;
}

}  // namespace pome
