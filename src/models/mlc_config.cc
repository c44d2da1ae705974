// Source of the fields: the configuration classes of mlc-ai/mlc-llm, revision 79d603f0.
#include "models/mlc_config.h"

#include <algorithm>
#include <cmath>

#include "models/hidden_act.h"
#include "models/mlc_names.h"

namespace pome {

namespace {

double number_of(const ModelInfo& info, const char* key, double absent = 0) {
  const auto found = info.config.find(key);
  if (found == info.config.end()) return absent;
  if (const auto* whole = std::get_if<int64_t>(&found->second)) return static_cast<double>(*whole);
  const auto* real = std::get_if<double>(&found->second);
  return real ? *real : absent;
}
int64_t integer_of(const ModelInfo& info, const char* key, int64_t absent = 0) {
  return static_cast<int64_t>(number_of(info, key, static_cast<double>(absent)));
}
bool flag_of(const ModelInfo& info, const char* key, bool absent) {
  const auto found = info.config.find(key);
  const auto* flag = found == info.config.end() ? nullptr : std::get_if<bool>(&found->second);
  return flag ? *flag : absent;
}
std::string text_of(const ModelInfo& info, const char* key) {
  const auto found = info.config.find(key);
  const auto* text =
      found == info.config.end() ? nullptr : std::get_if<std::string>(&found->second);
  return text ? *text : "";
}

// Whole numbers without a fraction, as configurations write them.
Json plain_number(double value) {
  if (value == std::floor(value) && std::fabs(value) < 9e15) return static_cast<int64_t>(value);
  return value;
}

// The object that says how positions are scaled; null when there is none.
Json rope_object(const Json& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto found = config.find(key);
    if (found != config.end() && found->is_object()) return *found;
  }
  return nullptr;
}

class Describer {
 public:
  Describer(const Json& config, const Graph& graph, int64_t context, int64_t chunk, MlcModel* out)
      : config_(config),
        graph_(graph),
        info_(graph.info),
        context_(context),
        chunk_(chunk),
        out_(out) {}

  Status describe() {
    POME_RETURN_IF_ERROR(check_parameters());
    POME_RETURN_IF_ERROR(check_activation());
    POME_RETURN_IF_ERROR(check_rope());
    limit_context();
    out_->context = context_;
    out_->model_config = fields();
    return {};
  }

 private:
  bool is(std::string_view family) const { return info_.family == family; }
  bool is_gemma() const { return is("gemma") || is("gemma2") || is("gemma3"); }

  Status refuse(const std::string& what) const {
    return unsupported("MLC's model of the family " + info_.family + " has no " + what)
        .hint("convert to coreml, onnx or gguf");
  }

  // Every weight has a place, and the biases that the class always has are there.
  Status check_parameters() const {
    bool biased = false;
    for (const Constant& constant : graph_.constants) {
      if (!constant.hf_name.empty() &&
          mlc_place(info_, constant.name, constant.data->shape()).name.empty()) {
        Status status = refuse("parameter for this weight");
        return std::move(status).at("tensor " + constant.name);
      }
      biased = biased || constant.name == "layers.0.attention.q.bias";
    }
    const bool always = is("qwen2") || is("qwen2_moe") || is("gpt_neox") || is("gpt2") || is("phi");
    if (always && !biased) return refuse("form without biases of q, k and v");
    if (is("phi3") && info_.head_dim * info_.num_attention_heads != info_.hidden_size)
      return refuse("head_dim of its own");
    return {};
  }

  Status check_activation() const {
    const auto act = HiddenAct::parse(text_of(info_, "hidden_act"));
    const char* own = is("gpt_neox")                          ? "gelu"
                      : is("gpt2") || is("phi") || is_gemma() ? "gelu_pytorch_tanh"
                                                              : "silu";
    // The first Gemma says "gelu" and means its approximation.
    const bool first = is("gemma") && text_of(info_, "hidden_act") == "gelu";
    if (first || act == HiddenAct::parse(own)) return {};
    return refuse("activation '" + escape_for_terminal(text_of(info_, "hidden_act"), 64) + "'");
  }

  Status check_rope() const {
    const std::string type = text_of(info_, "rope_type");
    if (type.empty() || type == "default") return check_scale();
    const bool llama3 = (is("llama") || is("mixtral")) && type == "llama3";
    const bool longrope = is("phi3") && type == "longrope";
    if (llama3 || longrope) return check_scale();
    if (is("gemma3")) {
      out_->warnings.push_back("MLC's gemma3 does not scale positions (" + type +
                               "): its answers differ from the model's");
      return {};
    }
    return refuse("rope type '" + escape_for_terminal(type, 64) + "'");
  }

  Status check_scale() const {
    if (is("gpt2") && !flag_of(info_, "scale_attn_weights", true))
      return refuse("attention that is not scaled by the head dimension");
    return {};
  }

  void limit(int64_t positions, const std::string& why) {
    if (positions <= 0 || context_ <= positions) return;
    context_ = positions;
    out_->warnings.push_back(why + ": the context is limited to " + std::to_string(positions) +
                             " tokens");
  }

  void limit_context() {
    const int64_t window = integer_of(info_, "sliding_window");
    if (is("gemma2")) {
      out_->warnings.push_back(
          "MLC's gemma2 leaves attn_logit_softcapping out: its answers differ a little from the "
          "model's");
      limit(window, "MLC's gemma2 has no sliding window");
    } else if (is("gemma3")) {
      out_->warnings.push_back(
          "MLC's gemma3 turns the layers with a sliding window by the rope_theta of the others: "
          "its answers differ from the model's");
    } else {
      limit(window, "MLC's " + info_.family + " has no sliding window as this model has it");
    }
    // The table of positions has as many rows as the context.
    if (is("gpt2")) context_ = info_.max_position_embeddings;
  }

  Json rope_scaling() const {
    const std::string type = text_of(info_, "rope_type");
    if (type.empty() || type == "default") return nullptr;
    Json out = rope_object(config_);
    if (out.is_null()) return out;
    for (const char* key : {"rope_theta", "partial_rotary_factor"}) out.erase(key);
    out["rope_type"] = type;
    if (is("phi3")) out["type"] = type;
    return out;
  }

  void add(Json* out, std::initializer_list<const char*> keys) const {
    for (const char* key : keys) (*out)[key] = value_of(key);
  }

  Json value_of(const std::string& key) const {
    if (key == "hidden_size" || key == "n_embd") return info_.hidden_size;
    if (key == "intermediate_size" || key == "n_inner") return info_.intermediate_size;
    if (key == "num_hidden_layers" || key == "n_layer") return info_.num_hidden_layers;
    if (key == "num_attention_heads" || key == "n_head") return info_.num_attention_heads;
    if (key == "num_key_value_heads") return info_.num_key_value_heads;
    if (key == "head_dim") return info_.head_dim;
    if (key == "vocab_size") return info_.vocab_size;
    if (key == "max_position_embeddings") return info_.max_position_embeddings;
    if (key == "tie_word_embeddings") return info_.tie_word_embeddings;
    if (key == "position_embedding_base" || key == "rope_theta")
      return plain_number(number_of(info_, "rope_theta", 10000));
    if (key == "layer_norm_epsilon") return number_of(info_, "layer_norm_eps");
    if (key == "rope_scaling") return rope_scaling();
    if (key == "hidden_activation") return "gelu_pytorch_tanh";
    if (key == "context_window_size") return context_;
    if (key == "prefill_chunk_size") return std::min(context_, chunk_);
    if (key == "partial_rotary_factor" || key == "rotary_pct")
      return number_of(info_, "rotary_dim", static_cast<double>(info_.head_dim)) /
             static_cast<double>(info_.head_dim);
    if (key == "tensor_parallel_shards" || key == "max_batch_size") return 1;
    const auto found = info_.config.find(key);
    if (found != info_.config.end()) {
      Json out;
      std::visit([&](const auto& value) { out = value; }, found->second);
      return out;
    }
    const auto stored = config_.find(key);
    return stored == config_.end() ? Json() : *stored;
  }

  Json fields() const {
    if (is("gpt2")) return gpt2();
    if (is("gpt_neox")) return gpt_neox();
    if (is("gemma3")) return gemma3();
    if (is_gemma()) return gemma();
    if (is("phi")) return phi();
    if (is("phi3")) return phi3();
    if (info_.family.starts_with("qwen")) return qwen();
    return llama();
  }

  Json llama() const {
    Json out = Json::object();
    add(&out, {"hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
               "rms_norm_eps", "vocab_size"});
    if (!is("mistral")) add(&out, {"tie_word_embeddings"});
    add(&out, {"position_embedding_base"});
    if (!is("mistral")) add(&out, {"rope_scaling"});
    add(&out, {"context_window_size"});
    if (is("mistral")) out["sliding_window_size"] = -1, out["attention_sink_size"] = -1;
    add(&out, {"prefill_chunk_size", "num_key_value_heads", "head_dim", "tensor_parallel_shards",
               "max_batch_size"});
    if (!is("mistral")) out["pipeline_parallel_stages"] = 1, out["disaggregation"] = false;
    if (!is("mixtral")) return out;
    out["num_local_experts"] = value_of("num_experts");
    add(&out, {"num_experts_per_tok"});
    return out;
  }

  Json qwen() const {
    Json out = Json::object();
    add(&out, {"hidden_act", "hidden_size", "intermediate_size", "num_attention_heads",
               "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "rope_theta",
               "vocab_size", "tie_word_embeddings", "context_window_size", "prefill_chunk_size",
               "tensor_parallel_shards", "head_dim"});
    out["dtype"] = "float32";
    add(&out, {"max_batch_size"});
    if (info_.family.starts_with("qwen3")) {
      bool biased = false;
      for (const Constant& constant : graph_.constants)
        biased = biased || constant.name == "layers.0.attention.q.bias";
      out["attention_bias"] = biased;
      out["weight_block_size"] = nullptr;
    }
    if (!info_.family.ends_with("_moe")) return out;
    add(&out, {"moe_intermediate_size", "num_experts_per_tok", "num_experts"});
    if (is("qwen2_moe")) add(&out, {"shared_expert_intermediate_size"});
    out["decoder_sparse_step"] = 1;
    const auto norm = config_.find("norm_topk_prob");
    out["norm_topk_prob"] = norm != config_.end() && norm->is_boolean() && norm->get<bool>();
    return out;
  }

  Json gemma() const {
    Json out = Json::object();
    add(&out, {"hidden_size", "intermediate_size"});
    out["attention_bias"] = false;
    add(&out,
        {"num_attention_heads", "num_key_value_heads", "head_dim", "num_hidden_layers",
         "rms_norm_eps", "vocab_size", "hidden_activation", "position_embedding_base",
         "context_window_size", "prefill_chunk_size", "tensor_parallel_shards", "max_batch_size"});
    if (is("gemma2")) {
      add(&out, {"attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"});
      // MLC takes its context from here.
      out["sliding_window"] = context_;
    }
    return out;
  }

  Json gemma3() const {
    const auto stored = [&](const char* key) {
      const auto text = config_.find("text_config");
      const Json& from = text != config_.end() && text->is_object() ? *text : config_;
      const auto found = from.find(key);
      return found == from.end() ? Json() : *found;
    };
    Json text = Json::object();
    add(&text, {"hidden_size", "intermediate_size", "num_hidden_layers"});
    text["attention_bias"] = false;
    add(&text, {"num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps",
                "hidden_activation", "position_embedding_base"});
    text["rope_scaling"] = 0;
    add(&text, {"context_window_size", "prefill_chunk_size"});
    text["query_pre_attn_scalar"] = stored("query_pre_attn_scalar");
    const Json window = stored("sliding_window");
    text["sliding_window_size"] = window.is_number() ? window : Json(context_);
    Json out = {{"text_config", text}};
    add(&out, {"vocab_size", "tensor_parallel_shards", "max_batch_size", "context_window_size"});
    out["sliding_window_size"] = text["sliding_window_size"];
    add(&out, {"prefill_chunk_size"});
    out["is_text_model"] = true;
    return out;
  }

  Json phi3() const {
    Json out = {{"model_type", "phi3"}};
    add(&out, {"hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads",
               "intermediate_size", "rms_norm_eps", "num_key_value_heads",
               "max_position_embeddings", "position_embedding_base", "rope_scaling"});
    const Json scaling = rope_object(config_);
    const auto beside = config_.find("original_max_position_embeddings");
    Json original =
        scaling.is_object() ? scaling.value("original_max_position_embeddings", Json(0)) : Json(0);
    if (beside != config_.end() && beside->is_number()) original = *beside;
    out["original_max_position_embeddings"] = original;
    add(&out, {"context_window_size", "prefill_chunk_size", "head_dim", "tensor_parallel_shards",
               "max_batch_size", "tie_word_embeddings", "partial_rotary_factor"});
    return out;
  }

  Json phi() const {
    Json out = Json::object();
    add(&out, {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
               "num_attention_heads", "layer_norm_eps", "position_embedding_base",
               "partial_rotary_factor", "num_key_value_heads", "context_window_size",
               "prefill_chunk_size", "head_dim", "tensor_parallel_shards", "max_batch_size"});
    return out;
  }

  Json gpt2() const {
    Json out = Json::object();
    add(&out, {"vocab_size", "n_embd", "n_layer", "n_head", "layer_norm_epsilon", "n_inner",
               "context_window_size", "prefill_chunk_size", "scale_attn_by_inverse_layer_idx",
               "tensor_parallel_shards", "head_dim", "max_batch_size"});
    return out;
  }

  Json gpt_neox() const {
    Json out = Json::object();
    add(&out, {"use_parallel_residual", "hidden_size", "intermediate_size", "num_attention_heads",
               "num_hidden_layers", "layer_norm_eps", "vocab_size", "rotary_pct",
               "position_embedding_base", "context_window_size", "head_dim", "prefill_chunk_size",
               "tensor_parallel_shards"});
    out["ffn_out_dtype"] = "float32";
    add(&out, {"max_batch_size"});
    return out;
  }

  const Json& config_;
  const Graph& graph_;
  const ModelInfo& info_;
  int64_t context_, chunk_;
  MlcModel* out_;
};

}  // namespace

Result<MlcModel> describe_for_mlc(const Checkpoint& checkpoint, const Graph& graph, int64_t context,
                                  int64_t chunk) {
  MlcModel out;
  out.model_type = mlc_model_type(graph.info.family);
  if (graph.info.family == "deepseek")
    return unsupported(
               "MLC's deepseek_v2 has parameters that pome does not write: self_attn.w_uk and "
               "self_attn.w_uv of every layer, the two halves of kv_b_proj once more, turned, in "
               "f16")
        .in(checkpoint.path)
        .hint(
            "MLC's own mlc_llm convert_weight makes them from the original checkpoint; or convert "
            "to coreml, onnx or gguf");
  if (out.model_type.empty())
    return unsupported("MLC has no model of the family " + graph.info.family)
        .in(checkpoint.path)
        .hint("it has " + mlc_families() + "; convert to coreml, onnx or gguf");
  POME_ASSIGN_OR_RETURN(out.config, hf_config_of(checkpoint, graph));
  if (Status status = Describer(out.config, graph, context, chunk, &out).describe(); !status.ok())
    return std::move(status).in(checkpoint.path);
  return out;
}

}  // namespace pome
