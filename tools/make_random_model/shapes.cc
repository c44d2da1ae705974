#include "shapes.h"

#include <cmath>
#include <numbers>
#include <optional>
#include <string_view>
#include <utility>

#include "families.h"

namespace pome::random_model {
namespace {

constexpr std::string_view kHfLayer = "model.layers.#.", kGgufLayer = "blk.#.";

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
    case Dim::kHeads:
      return model.num_attention_heads;
    case Dim::kExperts:
      return model.num_experts;
    case Dim::kExpertFf:
      return model.expert_size;
    case Dim::kTwoExpertFf:
      return 2 * model.expert_size;
    case Dim::kSharedFf:
      return model.num_shared_experts * model.expert_size;
    case Dim::kLatentQ:
      return model.num_attention_heads * (model.qk_nope_head_dim + model.qk_rope_head_dim);
    case Dim::kLatentIn:
      return model.kv_lora_rank + model.qk_rope_head_dim;
    case Dim::kLatent:
      return model.kv_lora_rank;
    case Dim::kLatentOut:
      return model.num_attention_heads * (model.qk_nope_head_dim + model.v_head_dim);
    case Dim::kLatentHeads:
      return model.num_attention_heads * model.v_head_dim;
    case Dim::kNone:
      break;
  }
  return 0;
}

std::string with_numbers(std::string_view prefix, std::string_view name, int64_t layer,
                         int64_t expert) {
  std::string text = name.empty() ? "" : std::string(prefix) + std::string(name);
  for (const auto& [symbol, number] : {std::pair{'#', layer}, std::pair{'@', expert}}) {
    if (const size_t at = text.find(symbol); at != std::string::npos) {
      text.replace(at, 1, std::to_string(number));
    }
  }
  return text;
}

void add_one(ModelShape& model, const Row& row, int64_t layer, int64_t expert) {
  TensorSpec spec;
  spec.hf_name = with_numbers(layer < 0 ? "" : kHfLayer, row.hf_name, layer, expert);
  spec.gguf_name = with_numbers(layer < 0 ? "" : kGgufLayer, row.gguf_name, layer, expert);
  if (row.outer != Dim::kNone) spec.shape.push_back(size_of(model, row.outer));
  spec.shape.push_back(size_of(model, row.rows));
  if (row.columns != Dim::kNone) spec.shape.push_back(size_of(model, row.columns));
  spec.role = row.role;
  spec.part = row.part;
  spec.layer = layer;
  spec.stored = row.stored;
  if (row.stored != Stored::kFloat) {
    spec.shape.back() /= kMxfp4Weights;
    if (row.stored == Stored::kMxfp4Blocks) spec.shape.push_back(kMxfp4Weights / 2);
  }
  model.tensors.push_back(std::move(spec));
}

void add(ModelShape& model, const Row& row, int64_t layer) {
  const bool per_expert = row.hf_name.find('@') != std::string_view::npos;
  for (int64_t e = 0; e < (per_expert ? model.num_experts : 1); ++e) add_one(model, row, layer, e);
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

// Sizes of mixtures of experts and of latent attention; 0 where the config has none.
Status read_mixture(const Json& config, const Family& family, ModelShape& model) {
  struct Field {
    std::string_view key;
    int64_t& out;
  };
  for (const Field& field :
       {Field{"n_shared_experts", model.num_shared_experts},
        Field{"first_k_dense_replace", model.dense_layers},
        Field{"kv_lora_rank", model.kv_lora_rank},
        Field{"qk_nope_head_dim", model.qk_nope_head_dim},
        Field{"qk_rope_head_dim", model.qk_rope_head_dim}, Field{"v_head_dim", model.v_head_dim}}) {
    POME_RETURN_IF_ERROR(read_integer(config, field.key, 0, field.out));
  }
  int64_t routed = 0, q_rank = 0;
  POME_RETURN_IF_ERROR(read_integer(config, "n_routed_experts", 0, routed));
  POME_RETURN_IF_ERROR(read_integer(config, "num_local_experts", routed, model.num_experts));
  POME_RETURN_IF_ERROR(
      read_integer(config, "moe_intermediate_size", model.intermediate_size, model.expert_size));
  POME_RETURN_IF_ERROR(read_integer(config, "q_lora_rank", 0, q_rank));
  if (q_rank > 0) return unsupported("a model with q_lora_rank");
  if (model.num_experts > 4096) return bad_input(Refusal::kRange, "more than 4096 experts");
  for (const Row& row : family.layer) {
    if (size_of(model, row.rows) == 0 ||
        (row.columns != Dim::kNone && size_of(model, row.columns) == 0)) {
      return bad_input(Refusal::kRange, "the config gives no size for " + std::string(row.hf_name));
    }
    if (row.stored != Stored::kFloat && size_of(model, row.columns) % kMxfp4Weights != 0) {
      return unsupported("MXFP4 rows that are no multiple of 32");
    }
  }
  return {};
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
  const Family* family = find_family(model_type);
  if (family == nullptr) {
    return unsupported("model_type \"" + model_type + "\"; known are " + family_names());
  }
  ModelShape model;
  model.family = family->model_type;
  model.has_gguf_names = family->has_gguf_names;
  POME_RETURN_IF_ERROR(read_sizes(config, layers, model));
  POME_RETURN_IF_ERROR(read_mixture(config, *family, model));
  if (!family->has_biases) POME_RETURN_IF_ERROR(refuse_biases(config));
  POME_ASSIGN_OR_RETURN(const auto eps, json_number(config, "rms_norm_eps"));
  POME_ASSIGN_OR_RETURN(const auto theta, json_number(config, "rope_theta"));
  POME_ASSIGN_OR_RETURN(const auto tied, json_bool(config, "tie_word_embeddings"));
  model.rms_norm_eps = eps.value_or(1e-5);
  model.rope_theta = theta.value_or(10000.0);
  model.tied = tied.value_or(false);
  if (const auto scaling = config.find("rope_scaling"); scaling != config.end()) {
    model.rope_scaling = *scaling;
  }
  for (const Row& row : family->before) add(model, row, -1);
  if (model.has_gguf_names) POME_RETURN_IF_ERROR(add_rope_tables(model));
  for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
    const bool dense = !family->dense_layer.empty() && layer < model.dense_layers;
    for (const Row& row : dense ? family->dense_layer : family->layer) add(model, row, layer);
  }
  for (const Row& row : family->after) {
    if (row.part != Part::kHead || !model.tied) add(model, row, -1);
  }
  return model;
}

}  // namespace pome::random_model
