#include "pipeline/genai_config.h"

#include <algorithm>

namespace pome {
namespace {

// All text decoders of the runtime end in one class; where it has a name for the architecture, that
// name keeps what else it knows about it.
std::string type_name(const ModelInfo& info) {
  static const char* const kKnown[] = {"gemma",   "gemma2",  "gemma3_text", "llama",
                                       "mistral", "phi",     "phi3",        "qwen2",
                                       "qwen3",   "smollm3", "gptoss",      "gpt2"};
  std::string name = info.family;
  if (name == "gpt_oss") name = "gptoss";
  if (name == "gemma3") name = "gemma3_text";
  // Its own class for GPT-2 has another cache layout.
  if (name == "gpt2") return "decoder";
  const bool known = std::any_of(std::begin(kKnown), std::end(kKnown),
                                 [&](const char* other) { return name == other; });
  return known ? name : "decoder";
}

Json end_tokens(const TokenizerSource& tokenizer, const Json& generation_config) {
  if (generation_config.is_object() && generation_config.contains("eos_token_id"))
    return generation_config["eos_token_id"];
  if (!tokenizer.stop_ids.empty()) return tokenizer.stop_ids;
  return tokenizer.eos.value_or(0);
}

template <typename T>
T value_or(const Json& object, const char* key, T fallback) {
  if (!object.is_object() || !object.contains(key) || object[key].is_null()) return fallback;
  if constexpr (std::is_same_v<T, bool>) {
    return object[key].is_boolean() ? object[key].template get<bool>() : fallback;
  } else {
    return object[key].is_number() ? object[key].template get<T>() : fallback;
  }
}

}  // namespace

Json genai_config(const ModelInfo& info, const OnnxReport& report, const TokenizerSource& tokenizer,
                  const Json& generation_config, int64_t context) {
  Json session = Json::object();
  session["log_id"] = "onnxruntime-genai";
  session["provider_options"] = Json::array();
  Json inputs = Json::object();
  inputs["input_ids"] = "input_ids";
  inputs["attention_mask"] = "attention_mask";
  if (report.position_ids) inputs["position_ids"] = "position_ids";
  inputs["past_key_names"] = "past_key_values.%d.key";
  inputs["past_value_names"] = "past_key_values.%d.value";
  Json outputs = Json::object();
  outputs["logits"] = "logits";
  outputs["present_key_names"] = "present.%d.key";
  outputs["present_value_names"] = "present.%d.value";
  Json decoder = Json::object();
  decoder["session_options"] = session;
  decoder["filename"] = kOnnxModel;
  decoder["head_size"] = report.head_size;
  decoder["hidden_size"] = info.hidden_size;
  decoder["inputs"] = inputs;
  decoder["outputs"] = outputs;
  decoder["num_attention_heads"] = info.num_attention_heads;
  decoder["num_hidden_layers"] = info.num_hidden_layers;
  decoder["num_key_value_heads"] = report.kv_heads;

  const Json end = end_tokens(tokenizer, generation_config);
  const Json first_end = end.is_array() ? (end.empty() ? Json(0) : end[0]) : end;
  Json model = Json::object();
  model["bos_token_id"] = tokenizer.bos.value_or(0);
  model["context_length"] = context;
  model["decoder"] = decoder;
  model["eos_token_id"] = end;
  model["pad_token_id"] = value_or<int64_t>(generation_config, "pad_token_id",
                                            first_end.is_number() ? first_end.get<int64_t>() : 0);
  model["type"] = type_name(info);
  model["vocab_size"] = info.vocab_size;

  Json search = Json::object();
  search["do_sample"] = value_or<bool>(generation_config, "do_sample", false);
  // With a shared buffer the runtime would allocate the caches for all of it before the first
  // token; without one they grow.
  search["max_length"] = context;
  search["min_length"] = 0;
  search["num_beams"] = 1;
  search["num_return_sequences"] = 1;
  search["past_present_share_buffer"] = false;
  search["repetition_penalty"] = value_or<double>(generation_config, "repetition_penalty", 1.0);
  search["temperature"] = value_or<double>(generation_config, "temperature", 1.0);
  search["top_k"] = value_or<int64_t>(generation_config, "top_k", 50);
  search["top_p"] = value_or<double>(generation_config, "top_p", 1.0);
  Json out = Json::object();
  out["model"] = model;
  out["search"] = search;
  return out;
}

}  // namespace pome
