#include "models/gguf_info.h"

#include <algorithm>
#include <cmath>

namespace pome {

namespace {

// Divisors of the frequencies: what llama.cpp knows of the scaling of Llama 3.
std::vector<float> llama3_factors(const RopeConfig& rope) {
  RopeConfig plain = rope;
  plain.type = "default";
  const std::vector<float> scaled = inverse_frequencies(rope), base = inverse_frequencies(plain);
  std::vector<float> out(base.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = base[i] / scaled[i];
  return out;
}

void limit(int64_t positions, const char* why, GgufInfo* gguf) {
  if (gguf->positions > 0 && gguf->positions <= positions) return;
  gguf->positions = positions;
  gguf->positions_reason = why;
}

// Readers make 1 + 0.1 ln(factor) of YaRN's attention factor themselves.
void note_yarn(const RopeConfig& rope, GgufInfo* gguf) {
  auto& values = gguf->values;
  values["rope.scaling.type"] = std::string("yarn");
  values["rope.scaling.factor"] = rope.factor;
  values["rope.scaling.original_context_length"] = rope.original_max_position_embeddings;
  values["rope.scaling.yarn_beta_fast"] = rope.beta_fast;
  values["rope.scaling.yarn_beta_slow"] = rope.beta_slow;
  if (rope.mscale_all_dim != 0) {
    values["rope.scaling.yarn_log_multiplier"] = 0.1 * rope.mscale_all_dim;
    return;
  }
  const double factor = rope.attention_factor / yarn_mscale(rope.factor);
  if (std::fabs(factor - 1) > 1e-6) values["rope.scaling.attn_factor"] = factor;
}

void note_rotation(const DecoderConfig& config, GgufInfo* gguf) {
  auto& values = gguf->values;
  const RopeConfig& rope = config.rope;
  std::erase_if(values,
                [](const auto& entry) { return entry.first.rfind("rope.scaling.", 0) == 0; });
  values["rope.dimension_count"] = rope.rotary_dim;
  values["rope.freq_base"] = rope.theta;
  if (config.local_rope) values["rope.freq_base_swa"] = config.local_rope->theta;
  if (rope.type == "linear") {
    values["rope.scaling.type"] = rope.type;
    values["rope.scaling.factor"] = rope.factor;
  } else if (rope.type == "yarn") {
    note_yarn(rope, gguf);
  } else if (rope.type == "llama3") {
    gguf->vectors["rope_freqs.weight"] = llama3_factors(rope);
  } else if (rope.type == "dynamic") {
    limit(rope.original_max_position_embeddings, "GGUF has no dynamic rope scaling", gguf);
  }
  if (!rope.short_factors.empty()) {
    gguf->vectors["rope_factors_short.weight"] = rope.short_factors;
    gguf->vectors["rope_factors_long.weight"] = rope.long_factors;
    values["rope.scaling.original_context_length"] = rope.original_max_position_embeddings;
    values["rope.scaling.attn_factor"] = rope.attention_factor;
  }
  if (rope.frequency_dim != rope.rotary_dim)
    gguf->obstacles.push_back("a rotary dimension of " + std::to_string(rope.frequency_dim));
}

}  // namespace

void complete_gguf(const DecoderConfig& config, ModelInfo* info) {
  GgufInfo& gguf = info->gguf;
  auto& values = gguf.values;
  values["context_length"] = info->max_position_embeddings;
  values["embedding_length"] = info->hidden_size;
  values["block_count"] = info->num_hidden_layers;
  values["feed_forward_length"] = info->intermediate_size;
  values["vocab_size"] = info->vocab_size;
  values["attention.head_count"] = info->num_attention_heads;
  values.emplace("attention.head_count_kv", info->num_key_value_heads);
  values.emplace("attention.key_length", info->head_dim);
  values.emplace("attention.value_length", info->head_dim);
  values[config.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"] =
      config.norm_eps;
  if (config.rotates) note_rotation(config, &gguf);
  const int64_t window = *std::max_element(config.windows.begin(), config.windows.end());
  if (window > 0 && !values.count("attention.sliding_window"))
    limit(window, "GGUF readers have no sliding window for this architecture", &gguf);
}

}  // namespace pome
