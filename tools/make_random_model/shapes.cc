#include "shapes.h"

#include <cmath>
#include <numbers>
#include <optional>
#include <span>
#include <string_view>

namespace pome::random_model {
namespace {

// Symbols of the shapes in the tables below.
enum class Dim : uint8_t { kNone, kVocab, kHidden, kFf, kTwoFf, kQ, kKv, kQkv };

struct Row {
  std::string_view hf_name, gguf_name;  // '#' is the layer
  Dim rows, columns;
  Role role;
  Part part;
};

constexpr std::string_view kHfLayer = "model.layers.#.", kGgufLayer = "blk.#.";

constexpr Row kBefore[] = {
    {"model.embed_tokens.weight", "token_embd.weight", Dim::kVocab, Dim::kHidden, Role::kEmbedding,
     Part::kTokenEmbedding},
};
constexpr Row kAfter[] = {
    {"model.norm.weight", "output_norm.weight", Dim::kHidden, Dim::kNone, Role::kNorm,
     Part::kOther},
    {"lm_head.weight", "output.weight", Dim::kVocab, Dim::kHidden, Role::kInput, Part::kHead},
};
constexpr Row kLlamaLayer[] = {
    {"input_layernorm.weight", "attn_norm.weight", Dim::kHidden, Dim::kNone, Role::kNorm,
     Part::kOther},
    {"self_attn.q_proj.weight", "attn_q.weight", Dim::kQ, Dim::kHidden, Role::kInput, Part::kOther},
    {"self_attn.k_proj.weight", "attn_k.weight", Dim::kKv, Dim::kHidden, Role::kInput,
     Part::kOther},
    {"self_attn.v_proj.weight", "attn_v.weight", Dim::kKv, Dim::kHidden, Role::kInput,
     Part::kAttentionV},
    {"self_attn.o_proj.weight", "attn_output.weight", Dim::kHidden, Dim::kQ, Role::kResidual,
     Part::kAttentionOutput},
    {"post_attention_layernorm.weight", "ffn_norm.weight", Dim::kHidden, Dim::kNone, Role::kNorm,
     Part::kOther},
    {"mlp.gate_proj.weight", "ffn_gate.weight", Dim::kFf, Dim::kHidden, Role::kInput, Part::kOther},
    {"mlp.up_proj.weight", "ffn_up.weight", Dim::kFf, Dim::kHidden, Role::kInput, Part::kOther},
    {"mlp.down_proj.weight", "ffn_down.weight", Dim::kHidden, Dim::kFf, Role::kResidual,
     Part::kDown},
};
constexpr Row kPhi3Layer[] = {
    {"input_layernorm.weight", "attn_norm.weight", Dim::kHidden, Dim::kNone, Role::kNorm,
     Part::kOther},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight", Dim::kQkv, Dim::kHidden, Role::kInput,
     Part::kAttentionV},
    {"self_attn.o_proj.weight", "attn_output.weight", Dim::kHidden, Dim::kQ, Role::kResidual,
     Part::kAttentionOutput},
    {"post_attention_layernorm.weight", "ffn_norm.weight", Dim::kHidden, Dim::kNone, Role::kNorm,
     Part::kOther},
    {"mlp.gate_up_proj.weight", "ffn_up.weight", Dim::kTwoFf, Dim::kHidden, Role::kInput,
     Part::kOther},
    {"mlp.down_proj.weight", "ffn_down.weight", Dim::kHidden, Dim::kFf, Role::kResidual,
     Part::kDown},
};

struct Family {
  std::string_view model_type;
  std::span<const Row> layer;
};
constexpr Family kFamilies[] = {{"llama", kLlamaLayer}, {"phi3", kPhi3Layer}};

int64_t size_of(const ModelShape& model, Dim dim) {
  const int64_t q = model.num_attention_heads * model.head_dim;
  const int64_t kv = model.num_key_value_heads * model.head_dim;
  switch (dim) {
    case Dim::kVocab:
      return model.vocab_size;
    case Dim::kHidden:
      return model.hidden_size;
    case Dim::kFf:
      return model.intermediate_size;
    case Dim::kTwoFf:
      return 2 * model.intermediate_size;
    case Dim::kQ:
      return q;
    case Dim::kKv:
      return kv;
    case Dim::kQkv:
      return q + 2 * kv;
    case Dim::kNone:
      break;
  }
  return 0;
}

std::string with_layer(std::string_view prefix, std::string_view name, int64_t layer) {
  std::string text = std::string(prefix) + std::string(name);
  if (const size_t at = text.find('#'); at != std::string::npos) {
    text.replace(at, 1, std::to_string(layer));
  }
  return text;
}

void add(ModelShape& model, const Row& row, int64_t layer) {
  TensorSpec spec;
  spec.hf_name = with_layer(layer < 0 ? "" : kHfLayer, row.hf_name, layer);
  spec.gguf_name = with_layer(layer < 0 ? "" : kGgufLayer, row.gguf_name, layer);
  spec.shape = {size_of(model, row.rows)};
  if (row.columns != Dim::kNone) spec.shape.push_back(size_of(model, row.columns));
  spec.role = row.role;
  spec.part = row.part;
  spec.layer = layer;
  model.tensors.push_back(std::move(spec));
}

Status read_integer(const Json& config, std::string_view key, std::optional<int64_t> otherwise,
                    int64_t& out) {
  POME_ASSIGN_OR_RETURN(const std::optional<int64_t> value, json_int(config, key));
  if (!value && !otherwise) {
    return bad_input(Refusal::kRange, "the config has no " + std::string(key));
  }
  out = value ? *value : *otherwise;
  // Large enough for every model, small enough for all products of two sizes.
  if (out < 0 || out > int64_t{1} << 28) {
    return bad_input(Refusal::kRange,
                     std::string(key) + " is " + std::to_string(out) + ", expected 0 to 2^28");
  }
  return {};
}

// Some configs list several end tokens; the first is the one that generation knows best.
Status read_token(const Json& config, const std::string& key, int64_t otherwise, int64_t& out) {
  const auto found = config.find(key);
  if (found != config.end() && found->is_array()) {
    if (found->empty() || !found->front().is_number_integer()) {
      return bad_input(Refusal::kType, key + " is a list without token ids");
    }
    out = found->front().get<int64_t>();
    return {};
  }
  return read_integer(config, key, otherwise, out);
}

Status read_sizes(const Json& config, int64_t layers, ModelShape& model) {
  struct Field {
    std::string_view key;
    int64_t& out;
  };
  for (const Field& field : {Field{"hidden_size", model.hidden_size},
                             Field{"intermediate_size", model.intermediate_size},
                             Field{"num_hidden_layers", model.num_hidden_layers},
                             Field{"num_attention_heads", model.num_attention_heads},
                             Field{"vocab_size", model.vocab_size}}) {
    POME_RETURN_IF_ERROR(read_integer(config, field.key, std::nullopt, field.out));
    if (field.out == 0) {
      return bad_input(Refusal::kRange, std::string(field.key) + " is 0");
    }
  }
  if (layers > 0) model.num_hidden_layers = layers;
  POME_RETURN_IF_ERROR(read_integer(config, "num_key_value_heads", model.num_attention_heads,
                                    model.num_key_value_heads));
  POME_RETURN_IF_ERROR(read_integer(config, "head_dim",
                                    model.hidden_size / model.num_attention_heads, model.head_dim));
  if (model.num_key_value_heads == 0 ||
      model.num_attention_heads % model.num_key_value_heads != 0) {
    return bad_input(Refusal::kRange, "num_key_value_heads does not divide num_attention_heads");
  }
  if (model.head_dim == 0 || model.head_dim % 2 != 0) {
    return bad_input(Refusal::kRange, "head_dim must be even and positive");
  }
  if (model.num_hidden_layers > 10000) {
    return bad_input(Refusal::kRange, "more than 10000 layers");
  }
  POME_RETURN_IF_ERROR(
      read_integer(config, "max_position_embeddings", 2048, model.max_position_embeddings));
  POME_RETURN_IF_ERROR(read_integer(config, "sliding_window", 0, model.sliding_window));
  POME_RETURN_IF_ERROR(read_token(config, "bos_token_id", 1, model.bos_token_id));
  return read_token(config, "eos_token_id", 2, model.eos_token_id);
}

Status refuse_biases(const Json& config) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    POME_ASSIGN_OR_RETURN(const std::optional<bool> bias, json_bool(config, key));
    if (bias.value_or(false)) return unsupported("a model with " + std::string(key));
  }
  return {};
}

// The factors by which Llama 3 divides each rotary frequency (its config calls the rule "llama3"):
// 1 for wavelengths well below the original context, `factor` for those above, linear between.
Result<std::vector<float>> llama3_factors(const ModelShape& model) {
  double numbers[4];
  const std::string_view keys[4] = {"factor", "low_freq_factor", "high_freq_factor",
                                    "original_max_position_embeddings"};
  for (int i = 0; i < 4; ++i) {
    POME_ASSIGN_OR_RETURN(const auto value, json_number(model.rope_scaling, keys[i]));
    if (!value || *value <= 0) {
      return bad_input(Refusal::kRange, "rope_scaling has no positive " + std::string(keys[i]));
    }
    numbers[i] = *value;
  }
  const auto [factor, low, high, context] = numbers;
  std::vector<float> factors;
  for (int64_t i = 0; i < model.head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(model.head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(model.rope_theta, exponent);
    double divisor = 1;
    if (wavelength > context / low) {
      divisor = factor;
    } else if (wavelength >= context / high) {
      const double smooth = (context / wavelength - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(divisor));
  }
  return factors;
}

Status add_rope_tables(ModelShape& model) {
  if (model.rope_scaling.is_null()) return {};
  if (!model.rope_scaling.is_object()) {
    return bad_input(Refusal::kType, "rope_scaling is neither null nor an object");
  }
  POME_ASSIGN_OR_RETURN(const auto rope_type, json_string(model.rope_scaling, "rope_type"));
  POME_ASSIGN_OR_RETURN(const auto old_name, json_string(model.rope_scaling, "type"));
  const std::string kind = rope_type.value_or(old_name.value_or(""));
  const auto add_table = [&](const char* name, std::vector<float> values) {
    TensorSpec spec;
    spec.gguf_name = name;
    spec.shape = {static_cast<int64_t>(values.size())};
    spec.role = Role::kTable;
    spec.values = std::move(values);
    model.tensors.push_back(std::move(spec));
  };
  if (kind == "llama3") {
    POME_ASSIGN_OR_RETURN(std::vector<float> factors, llama3_factors(model));
    add_table("rope_freqs.weight", std::move(factors));
    return {};
  }
  for (const auto& [key, name] : {std::pair{"long_factor", "rope_factors_long.weight"},
                                  std::pair{"short_factor", "rope_factors_short.weight"}}) {
    const auto list = model.rope_scaling.find(key);
    if (list == model.rope_scaling.end() || !list->is_array() ||
        static_cast<int64_t>(list->size()) * 2 != model.head_dim) {
      return unsupported("rope_scaling of type \"" + kind + "\"");
    }
    std::vector<float> values;
    for (const Json& value : *list) {
      if (!value.is_number()) return bad_input(Refusal::kType, "rope_scaling factors");
      values.push_back(value.get<float>());
    }
    add_table(name, std::move(values));
  }
  return {};
}

}  // namespace

Result<ModelShape> read_shape(const Json& config, int64_t layers) {
  POME_ASSIGN_OR_RETURN(const auto stated_type, json_string(config, "model_type"));
  const std::string model_type = stated_type.value_or("");
  const Family* family = nullptr;
  for (const Family& known : kFamilies) {
    if (model_type == known.model_type) family = &known;
  }
  if (family == nullptr) {
    return unsupported("model_type \"" + model_type + "\"; known are llama and phi3");
  }
  ModelShape model;
  model.family = family->model_type;
  POME_RETURN_IF_ERROR(read_sizes(config, layers, model));
  POME_RETURN_IF_ERROR(refuse_biases(config));
  POME_ASSIGN_OR_RETURN(const auto eps, json_number(config, "rms_norm_eps"));
  POME_ASSIGN_OR_RETURN(const auto theta, json_number(config, "rope_theta"));
  POME_ASSIGN_OR_RETURN(const auto tied, json_bool(config, "tie_word_embeddings"));
  model.rms_norm_eps = eps.value_or(1e-5);
  model.rope_theta = theta.value_or(10000.0);
  model.tied = tied.value_or(false);
  if (const auto scaling = config.find("rope_scaling"); scaling != config.end()) {
    model.rope_scaling = *scaling;
  }
  for (const Row& row : kBefore) add(model, row, -1);
  POME_RETURN_IF_ERROR(add_rope_tables(model));
  for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
    for (const Row& row : family->layer) add(model, row, layer);
  }
  for (const Row& row : kAfter) {
    if (row.part != Part::kHead || !model.tied) add(model, row, -1);
  }
  return model;
}

}  // namespace pome::random_model
