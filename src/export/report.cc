#include "export/report.h"

#include "base/json.h"

namespace pome {

std::string model_info_json(const ModelInfo& info) {
  Json out = Json::object();
  out["family"] = info.family;
  out["architecture"] = info.architecture;
  out["name"] = info.name;
  out["vocab_size"] = info.vocab_size;
  out["hidden_size"] = info.hidden_size;
  out["intermediate_size"] = info.intermediate_size;
  out["num_hidden_layers"] = info.num_hidden_layers;
  out["num_attention_heads"] = info.num_attention_heads;
  out["num_key_value_heads"] = info.num_key_value_heads;
  out["head_dim"] = info.head_dim;
  out["max_position_embeddings"] = info.max_position_embeddings;
  out["tie_word_embeddings"] = info.tie_word_embeddings;
  for (const auto& [key, value] : info.config) {
    if (!out.contains(key)) std::visit([&, name = key](const auto& v) { out[name] = v; }, value);
  }
  return dump_json(out);
}

}  // namespace pome
