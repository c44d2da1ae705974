// Rotary position embedding: configuration and frequencies. The formulas of the scaled variants are
// those of transformers' modeling_rope_utils, because published configurations are written for it.
#include "models/rope.h"

#include <algorithm>
#include <cmath>

namespace pome {

namespace {

std::optional<double> number_in(ConfigReader& config, const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (!found->is_number() || !std::isfinite(found->get<double>())) {
    config.complain(Refusal::kType,
                    std::string("rope scaling: ") + key + " must be a finite number");
    return std::nullopt;
  }
  return found->get<double>();
}

std::optional<double> positive_in(ConfigReader& config, const Json& object, const char* key,
                                  bool required) {
  const auto value = number_in(config, object, key);
  if (!value && required)
    config.complain(Refusal::kRange, std::string("rope scaling: ") + key + " is missing");
  if (value && !(*value > 0)) {
    config.complain(Refusal::kRange, std::string("rope scaling: ") + key + " must be positive");
    return std::nullopt;
  }
  return value;
}

std::vector<float> factors_in(ConfigReader& config, const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) {
    config.complain(Refusal::kType, std::string("rope scaling: ") + key + " must be a list");
    return {};
  }
  std::vector<float> out;
  for (const Json& item : *found) {
    const float value = item.is_number() ? static_cast<float>(item.get<double>()) : 0.0f;
    if (!(value > 0) || !std::isfinite(value)) {
      config.complain(Refusal::kRange,
                      std::string("rope scaling: ") + key + " must hold positive finite numbers");
      return {};
    }
    out.push_back(value);
  }
  return out;
}

void read_llama3(ConfigReader& config, const Json& scaling, RopeConfig* rope) {
  rope->low_freq_factor = positive_in(config, scaling, "low_freq_factor", true).value_or(1);
  rope->high_freq_factor = positive_in(config, scaling, "high_freq_factor", true).value_or(4);
  if (rope->high_freq_factor <= rope->low_freq_factor)
    config.complain(Refusal::kRange,
                    "rope scaling: high_freq_factor must be larger than low_freq_factor");
}

void read_yarn(ConfigReader& config, const Json& scaling, RopeConfig* rope) {
  rope->beta_fast = positive_in(config, scaling, "beta_fast", false).value_or(32);
  rope->beta_slow = positive_in(config, scaling, "beta_slow", false).value_or(1);
  if (rope->beta_fast < rope->beta_slow)
    config.complain(Refusal::kRange, "rope scaling: beta_fast must not be less than beta_slow");
  if (const auto found = scaling.find("truncate"); found != scaling.end() && !found->is_null()) {
    if (!found->is_boolean())
      config.complain(Refusal::kType, "rope scaling: truncate must be true or false");
    else
      rope->truncate = found->get<bool>();
  }
  rope->mscale = number_in(config, scaling, "mscale").value_or(0);
  rope->mscale_all_dim = number_in(config, scaling, "mscale_all_dim").value_or(0);
  const double both = rope->mscale != 0 && rope->mscale_all_dim != 0
                          ? yarn_mscale(rope->factor, rope->mscale) /
                                yarn_mscale(rope->factor, rope->mscale_all_dim)
                          : yarn_mscale(rope->factor);
  rope->attention_factor = positive_in(config, scaling, "attention_factor", false).value_or(both);
}

// Positions of the model and of its first training, as the config or the scaling says.
struct Positions {
  double all = 0, original = 0;
};

void read_longrope(ConfigReader& config, const Json& scaling, const Positions& positions,
                   RopeConfig* rope) {
  rope->short_factors = factors_in(config, scaling, "short_factor");
  rope->long_factors = factors_in(config, scaling, "long_factor");
  const double factor = positive_in(config, scaling, "factor", false)
                            .value_or(positions.all / std::max(positions.original, 1.0));
  rope->factor = factor;
  // Ding et al. 2024, arXiv 2402.13753
  const double scale = factor <= 1 || positions.original <= 1
                           ? 1
                           : std::sqrt(1 + std::log(factor) / std::log(positions.original));
  rope->attention_factor = positive_in(config, scaling, "attention_factor", false).value_or(scale);
}

std::string type_in(ConfigReader& config, const Json& parameters) {
  for (const char* key : {"rope_type", "type"}) {
    const auto found = parameters.find(key);
    if (found == parameters.end() || found->is_null()) continue;
    if (found->is_string()) return found->get<std::string>();
    config.complain(Refusal::kType, std::string("rope scaling: ") + key + " must be a string");
  }
  return "default";
}

// transformers lets the value beside the parameters win.
Positions read_positions(ConfigReader& config, const Json& parameters) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  Positions out;
  out.all = config.maybe_number("max_position_embeddings", "").value_or(0);
  auto original = config.maybe_number(kOriginal, "");
  if (!original) original = number_in(config, parameters, kOriginal);
  out.original = original.value_or(out.all);
  if (!(out.original >= 1))
    config.complain(Refusal::kRange,
                    std::string("rope scaling: ") + kOriginal + " must be at least 1");
  return out;
}

void read_parameters(ConfigReader& config, const RopeKeys& keys, const Json& parameters,
                     RopeConfig* rope) {
  rope->type = type_in(config, parameters);
  if (rope->type == "su" || (keys.yarn_is_longrope && rope->type == "yarn"))
    rope->type = "longrope";
  if (rope->type == "default") return;
  static constexpr const char* kKnown[] = {"linear", "dynamic", "llama3", "yarn", "longrope"};
  if (std::find(std::begin(kKnown), std::end(kKnown), rope->type) == std::end(kKnown))
    return config.unsupported("rope type '" + escape_for_terminal(rope->type, 64) +
                              "' (known: default, linear, dynamic, llama3, yarn, longrope)");
  const bool scaled = rope->type != "linear" && rope->type != "dynamic";
  Positions positions;
  if (scaled) positions = read_positions(config, parameters);
  if (rope->type == "dynamic")
    positions.original = config.maybe_number("max_position_embeddings", "").value_or(0);
  rope->original_max_position_embeddings =
      static_cast<int64_t>(std::clamp(positions.original, 0.0, 1e12));
  if (rope->type == "longrope") return read_longrope(config, parameters, positions, rope);
  const auto factor = positive_in(config, parameters, "factor", rope->type != "yarn");
  rope->factor = factor.value_or(scaled ? positions.all / std::max(positions.original, 1.0) : 1);
  if (rope->type == "llama3") read_llama3(config, parameters, rope);
  if (rope->type == "yarn") read_yarn(config, parameters, rope);
}

// rope_scaling when it says anything, else rope_parameters. Null when there is neither.
const Json* parameters_of(ConfigReader& config, const RopeKeys& keys) {
  if (keys.parameters) return keys.parameters;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* found = config.value(key);
    if (!found) continue;
    if (!found->is_object()) {
      config.complain(Refusal::kType, std::string(key) + ": rope scaling must be an object");
      return nullptr;
    }
    for (const char* kind : {"full_attention", "sliding_attention"})
      if (found->contains(kind))
        config.unsupported(std::string(key) + " by layer type in this family");
    if (!found->empty()) return found;
  }
  return keys.absent;
}

void read_rotary_dim(ConfigReader& config, const RopeKeys& keys, const Json& parameters,
                     RopeConfig* rope) {
  const std::string key(keys.partial_key);
  const auto beside = keys.parameters ? std::nullopt : config.maybe_number(key, "");
  const double partial =
      number_in(config, parameters, "partial_rotary_factor")
          .value_or(beside.value_or(keys.partial_rotary_factor ? keys.partial_rotary_factor : 1));
  if (!(partial > 0 && partial <= 1))
    return config.complain(Refusal::kRange, key + " must lie in (0, 1]");
  if (partial != 1 && !keys.partial_rotary_factor)
    return config.unsupported(key + " in this family, whose heads rotate as a whole");
  rope->frequency_dim = static_cast<int64_t>(static_cast<double>(keys.head_dim) * partial);
  // As many frequencies as there are even numbers below it.
  rope->rotary_dim = (rope->frequency_dim + 1) / 2 * 2;
}

void read_gguf_scaling(ConfigReader& config, RopeConfig* rope) {
  const std::string type = config.maybe_string("", "rope.scaling.type").value_or("none");
  rope->original_max_position_embeddings =
      config.maybe_int("", "rope.scaling.original_context_length").value_or(0);
  const double attention = config.positive("", "rope.scaling.attn_factor", 1.0);
  if (type == "none" || type == "longrope") {
    // The factors of longrope are tensors; its files need not name the type.
    rope->attention_factor = attention;
  } else if (type == "linear") {
    rope->type = type;
    rope->factor = config.positive("", "rope.scaling.factor");
  } else if (type == "yarn") {
    rope->type = type;
    rope->factor = config.positive("", "rope.scaling.factor");
    if (rope->original_max_position_embeddings < 1)
      rope->original_max_position_embeddings = config.maybe_int("", "context_length").value_or(1);
    rope->beta_fast = config.positive("", "rope.scaling.yarn_beta_fast", 32.0);
    rope->beta_slow = config.positive("", "rope.scaling.yarn_beta_slow", 1.0);
    rope->attention_factor = attention * yarn_mscale(rope->factor);
  } else {
    config.unsupported("rope scaling type '" + escape_for_terminal(type, 64) +
                       "' (known: none, linear, yarn, longrope)");
  }
}

// Interpolated and original frequencies, blended along the dimensions.
void apply_yarn(const RopeConfig& rope, std::vector<float>* frequencies) {
  const double d = static_cast<double>(rope.frequency_dim ? rope.frequency_dim : rope.rotary_dim);
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  // The dimension that turns `rotations` times within the original context.
  const auto dimension = [&](double rotations) {
    return d * std::log(original / (rotations * 2 * 3.14159265358979323846)) /
           (2 * std::log(rope.theta));
  };
  double low = dimension(rope.beta_fast), high = dimension(rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies->size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const float keep = 1.0f - static_cast<float>(ramp);
    float& frequency = (*frequencies)[i];
    frequency = frequency / static_cast<float>(rope.factor) * (1 - keep) + frequency * keep;
  }
}

// Long wavelengths are stretched by `factor`, short ones stay, those between are blended (Llama 3.1
// release).
float llama3_frequency(const RopeConfig& rope, float frequency) {
  constexpr float kTwoPi = 6.283185307179586f;
  const float original = static_cast<float>(rope.original_max_position_embeddings);
  const float wavelength = kTwoPi / frequency;
  const float low = static_cast<float>(rope.low_freq_factor),
              high = static_cast<float>(rope.high_freq_factor);
  const float factor = static_cast<float>(rope.factor);
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

void declare_length(int64_t max_position_embeddings, int64_t context, RopeConfig* rope) {
  const int64_t original = rope->original_max_position_embeddings;
  if (rope->type == "dynamic" && context > original) {
    // A base that stretches the longest wave by as much as the text is longer (transformers takes
    // the length of the text for this).
    const double times =
        static_cast<double>(context) / static_cast<double>(std::max<int64_t>(original, 1));
    const double stretch = rope->factor * times - (rope->factor - 1);
    const double d = static_cast<double>(rope->frequency_dim);
    if (stretch > 1 && d > 2) rope->theta *= std::pow(stretch, d / (d - 2));
  }
  if (rope->long_factors.empty()) return;
  constexpr int64_t kDefaultContext = 4096;  // of sessions and artefacts too
  const int64_t positions =
      std::min(context > 0 ? context : kDefaultContext, max_position_embeddings);
  rope->use_long_factors = positions > original;
}

int64_t positions_of(const ModelInfo& info, int64_t context) {
  const auto found = info.config.find(kStretchedPositions);
  if (found == info.config.end()) return info.max_position_embeddings;
  return std::max(info.max_position_embeddings,
                  std::min(context, std::get<int64_t>(found->second)));
}

RopeConfig read_rope(ConfigReader& config, const RopeKeys& keys) {
  RopeConfig rope;
  rope.rotary_dim = rope.frequency_dim = keys.head_dim;
  if (config.is_gguf()) {
    rope.theta = config.positive("", "rope.freq_base", 10000.0);
    rope.rotary_dim = config.maybe_int("", "rope.dimension_count").value_or(keys.head_dim);
    rope.frequency_dim = rope.rotary_dim;
    read_gguf_scaling(config, &rope);
  } else {
    const Json* given = parameters_of(config, keys);
    const Json parameters = given ? *given : Json::object();
    const auto beside = keys.parameters ? std::nullopt : config.maybe_number(keys.theta_key, "");
    rope.theta = number_in(config, parameters, "rope_theta").value_or(beside.value_or(keys.theta));
    read_parameters(config, keys, parameters, &rope);
    read_rotary_dim(config, keys, parameters, &rope);
  }
  if (!(rope.theta > 0)) {
    config.complain(Refusal::kRange, std::string(keys.theta_key) + " must be positive");
    rope.theta = 10000;
  }
  if (rope.rotary_dim < 2 || rope.rotary_dim > keys.head_dim || rope.rotary_dim % 2 != 0) {
    config.complain(Refusal::kRange, "rotary dimension " + std::to_string(rope.rotary_dim) +
                                         " must be even and at most the head dimension " +
                                         std::to_string(keys.head_dim));
    rope.rotary_dim = rope.frequency_dim = std::max<int64_t>(2, keys.head_dim / 2 * 2);
  }
  if (rope.type == "dynamic" && rope.frequency_dim <= 2)
    config.complain(Refusal::kRange, "dynamic rope scaling of a rotary dimension of " +
                                         std::to_string(rope.frequency_dim));
  for (const auto* factors : {&rope.short_factors, &rope.long_factors})
    if (!factors->empty() && static_cast<int64_t>(factors->size()) * 2 != rope.rotary_dim)
      config.complain(Refusal::kRange, "rope scaling: " + std::to_string(factors->size()) +
                                           " factors for a rotary dimension of " +
                                           std::to_string(rope.rotary_dim));
  return rope;
}

std::vector<float> inverse_frequencies(const RopeConfig& rope, std::span<const float> factors) {
  std::vector<float> out(static_cast<size_t>(rope.rotary_dim / 2));
  const int64_t d = rope.frequency_dim ? rope.frequency_dim : rope.rotary_dim;
  const std::vector<float>& own = rope.use_long_factors ? rope.long_factors : rope.short_factors;
  for (size_t i = 0; i < out.size(); ++i) {
    // f32 arithmetic in the order of the training code, so that angles agree to the last bit where
    // libm does.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(d);
    const float power = std::pow(static_cast<float>(rope.theta), exponent);
    float frequency = i < own.size() ? 1.0f / (own[i] * power) : 1.0f / power;
    if (rope.type == "linear") frequency /= static_cast<float>(rope.factor);
    if (rope.type == "llama3") frequency = llama3_frequency(rope, frequency);
    if (i < factors.size()) frequency /= factors[i];
    out[i] = frequency;
  }
  if (rope.type == "yarn") apply_yarn(rope, &out);
  return out;
}

}  // namespace pome
