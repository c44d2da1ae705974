#include "models/config.h"

#include <cmath>

namespace pome {

ConfigReader::ConfigReader(const Checkpoint& checkpoint)
    : checkpoint_(checkpoint), gguf_(checkpoint.format == "gguf") {
  if (gguf_ && checkpoint.gguf.is_object()) {
    const auto found = checkpoint.gguf.find("general.architecture");
    if (found != checkpoint.gguf.end() && found->is_string()) prefix_ = found->get<std::string>();
  }
}

const Json& ConfigReader::object() const { return gguf_ ? checkpoint_.gguf : checkpoint_.config; }

const Json* ConfigReader::find(std::string_view hf, std::string_view gguf,
                               std::string* name) const {
  *name = gguf_ ? prefix_ + "." + std::string(gguf) : std::string(hf);
  if (gguf_ ? gguf.empty() : hf.empty()) return nullptr;
  const Json& all = object();
  if (!all.is_object()) return nullptr;
  const auto found = all.find(*name);
  return found == all.end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> ConfigReader::maybe_int(std::string_view hf, std::string_view gguf) {
  std::string name;
  const Json* value = find(hf, gguf, &name);
  if (!value) return std::nullopt;
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) {
    complain(Refusal::kType, name + " must be an integer, is " + dump_json(*value).substr(0, 80));
    return std::nullopt;
  }
  return value->get<int64_t>();
}

std::optional<double> ConfigReader::maybe_number(std::string_view hf, std::string_view gguf) {
  std::string name;
  const Json* value = find(hf, gguf, &name);
  if (!value) return std::nullopt;
  if (!value->is_number()) {
    complain(Refusal::kType, name + " must be a number, is " + dump_json(*value).substr(0, 80));
    return std::nullopt;
  }
  const double number = value->get<double>();
  if (!std::isfinite(number)) {
    complain(Refusal::kRange, name + " is not finite");
    return std::nullopt;
  }
  return number;
}

std::optional<bool> ConfigReader::maybe_bool(std::string_view hf, std::string_view gguf) {
  std::string name;
  const Json* value = find(hf, gguf, &name);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) {
    complain(Refusal::kType,
             name + " must be true or false, is " + dump_json(*value).substr(0, 80));
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<std::string> ConfigReader::maybe_string(std::string_view hf, std::string_view gguf) {
  std::string name;
  const Json* value = find(hf, gguf, &name);
  if (!value) return std::nullopt;
  if (!value->is_string()) {
    complain(Refusal::kType, name + " must be a string, is " + dump_json(*value).substr(0, 80));
    return std::nullopt;
  }
  return value->get<std::string>();
}

int64_t ConfigReader::integer(std::string_view hf, std::string_view gguf, int64_t least,
                              int64_t most) {
  const size_t before = complaints_.size();
  const auto value = maybe_int(hf, gguf);
  const std::string name = gguf_ ? prefix_ + "." + std::string(gguf) : std::string(hf);
  if (!value) {
    if (complaints_.size() == before) complain(Refusal::kRange, name + " is missing");
    return least;
  }
  if (*value < least || *value > most) {
    complain(Refusal::kRange, name + " must lie in [" + std::to_string(least) + ", " +
                                  std::to_string(most) + "], is " + std::to_string(*value));
    return least;
  }
  return *value;
}

double ConfigReader::positive(std::string_view hf, std::string_view gguf,
                              std::optional<double> fallback) {
  const size_t before = complaints_.size();
  const auto value = maybe_number(hf, gguf);
  const std::string name = gguf_ ? prefix_ + "." + std::string(gguf) : std::string(hf);
  if (!value) {
    if (fallback && complaints_.size() == before) return *fallback;
    if (complaints_.size() == before) complain(Refusal::kRange, name + " is missing");
    return 1;
  }
  if (!(*value > 0)) {
    complain(Refusal::kRange, name + " must be positive, is " + std::to_string(*value));
    return 1;
  }
  return *value;
}

void ConfigReader::complain(Refusal refusal, std::string message) {
  if (refusal_ == Refusal::kNone) refusal_ = refusal;
  complaints_.push_back(std::move(message));
}

void ConfigReader::unsupported(std::string message) { unsupported_.push_back(std::move(message)); }

Status ConfigReader::finish(const std::string& path) const {
  const auto join = [](const std::vector<std::string>& lines) {
    std::string text = lines[0];
    for (size_t i = 1; i < lines.size(); ++i) text += "; " + lines[i];
    return text;
  };
  if (!complaints_.empty())
    return bad_input(refusal_, join(complaints_)).in(path).at(gguf_ ? "metadata" : "config.json");
  if (!unsupported_.empty())
    return pome::unsupported("not supported: " + join(unsupported_))
        .in(path)
        .at(gguf_ ? "metadata" : "config.json");
  return {};
}

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

void read_scaling(ConfigReader& config, const Json& scaling, RopeConfig* rope) {
  if (!scaling.is_object())
    return config.complain(Refusal::kType, "rope scaling must be an object");
  for (const char* key : {"rope_type", "type"}) {
    const auto found = scaling.find(key);
    if (found == scaling.end() || found->is_null()) continue;
    if (!found->is_string())
      return config.complain(Refusal::kType,
                             std::string("rope scaling: ") + key + " must be a string");
    rope->type = found->get<std::string>();
    break;
  }
  if (const auto theta = number_in(config, scaling, "rope_theta")) rope->theta = *theta;
  if (rope->type == "default") return;
  if (rope->type != "linear" && rope->type != "llama3")
    return config.unsupported("rope type '" + escape_for_terminal(rope->type, 64) +
                              "' (known: default, linear, llama3)");
  const auto required = [&](const char* key) {
    const auto value = number_in(config, scaling, key);
    if (!value)
      config.complain(Refusal::kRange, std::string("rope scaling: ") + key + " is missing");
    else if (!(*value > 0))
      config.complain(Refusal::kRange, std::string("rope scaling: ") + key + " must be positive");
    return value && *value > 0 ? *value : 1.0;
  };
  rope->factor = required("factor");
  if (rope->type == "llama3") {
    rope->low_freq_factor = required("low_freq_factor");
    rope->high_freq_factor = required("high_freq_factor");
    rope->original_max_position_embeddings =
        static_cast<int64_t>(required("original_max_position_embeddings"));
    if (rope->high_freq_factor <= rope->low_freq_factor)
      config.complain(Refusal::kRange,
                      "rope scaling: high_freq_factor must be larger than low_freq_factor");
  }
}

}  // namespace

RopeConfig read_rope(ConfigReader& config, int64_t head_dim) {
  RopeConfig rope;
  rope.rotary_dim = head_dim;
  if (config.is_gguf()) {
    rope.theta = config.positive("", "rope.freq_base", 10000.0);
    rope.rotary_dim = config.maybe_int("", "rope.dimension_count").value_or(head_dim);
    const std::string type = config.maybe_string("", "rope.scaling.type").value_or("none");
    if (type == "linear") {
      rope.type = type;
      rope.factor = config.positive("", "rope.scaling.factor");
    } else if (type != "none") {
      config.unsupported("rope scaling type '" + escape_for_terminal(type, 64) +
                         "' (known: none, linear)");
    }
  } else {
    const Json& all = config.object();
    rope.theta = config.positive("rope_theta", "", 10000.0);
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const auto found = all.find(key);
      if (found != all.end() && !found->is_null()) read_scaling(config, *found, &rope);
    }
    const double partial = config.positive("partial_rotary_factor", "", 1.0);
    rope.rotary_dim = static_cast<int64_t>(static_cast<double>(head_dim) * partial);
  }
  if (!(rope.theta > 0)) config.complain(Refusal::kRange, "rope_theta must be positive");
  if (rope.rotary_dim < 2 || rope.rotary_dim > head_dim || rope.rotary_dim % 2 != 0) {
    config.complain(Refusal::kRange, "rotary dimension " + std::to_string(rope.rotary_dim) +
                                         " must be even and at most the head dimension " +
                                         std::to_string(head_dim));
    rope.rotary_dim = std::max<int64_t>(2, head_dim / 2 * 2);
  }
  return rope;
}

std::vector<float> inverse_frequencies(const RopeConfig& rope, std::span<const float> factors) {
  std::vector<float> out(static_cast<size_t>(rope.rotary_dim / 2));
  constexpr float kTwoPi = 6.283185307179586f;
  for (size_t i = 0; i < out.size(); ++i) {
    // f32 arithmetic in the order of the training code, so that angles agree to the last bit where
    // libm does.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.rotary_dim);
    float frequency = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    if (rope.type == "linear") frequency /= static_cast<float>(rope.factor);
    if (rope.type == "llama3") {
      // Long wavelengths are stretched by `factor`, short ones stay, those between are blended
      // (Llama 3.1 release).
      const float original = static_cast<float>(rope.original_max_position_embeddings);
      const float wavelength = kTwoPi / frequency;
      const float low = static_cast<float>(rope.low_freq_factor),
                  high = static_cast<float>(rope.high_freq_factor);
      const float factor = static_cast<float>(rope.factor);
      if (wavelength > original / low) {
        frequency /= factor;
      } else if (wavelength >= original / high) {
        const float smooth = (original / wavelength - low) / (high - low);
        frequency = (1 - smooth) * frequency / factor + smooth * frequency;
      }
    }
    if (i < factors.size()) frequency /= factors[i];
    out[i] = frequency;
  }
  return out;
}

std::optional<Activation> parse_activation(std::string_view hidden_act) {
  if (hidden_act == "silu" || hidden_act == "swish") return Activation::kSilu;
  if (hidden_act == "gelu") return Activation::kGelu;
  if (hidden_act == "gelu_new" || hidden_act == "gelu_pytorch_tanh" || hidden_act == "gelu_fast")
    return Activation::kGeluTanh;
  if (hidden_act == "relu") return Activation::kRelu;
  return std::nullopt;
}

}  // namespace pome
