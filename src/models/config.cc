#include "models/config.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace pome {

namespace {

// GGUF keeps the numbers of configurations as f32: the decimal that was meant, 1e-05 and not
// 9.99999975e-06.
double shortest_decimal(double number) {
  const float kept = static_cast<float>(number);
  if (static_cast<double>(kept) != number) return number;
  for (int digits = 1; digits < 9; ++digits) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*g", digits, number);
    const double candidate = std::strtod(text, nullptr);
    if (static_cast<float>(candidate) == kept) return candidate;
  }
  return number;
}

}  // namespace

ConfigReader::ConfigReader(const Checkpoint& checkpoint, std::string_view class_defaults)
    : checkpoint_(checkpoint), gguf_(checkpoint.format == "gguf") {
  auto defaults = parse_json(class_defaults, "class defaults");
  POME_CHECK(defaults.ok());
  class_defaults_ = std::move(*defaults);
  if (gguf_ && checkpoint.gguf.is_object()) {
    const auto found = checkpoint.gguf.find("general.architecture");
    if (found != checkpoint.gguf.end() && found->is_string()) prefix_ = found->get<std::string>();
  }
}

const Json& ConfigReader::object() const { return gguf_ ? checkpoint_.gguf : checkpoint_.config; }

const Json* ConfigReader::find(std::string_view hf, std::string_view gguf,
                               std::string* name) const {
  *name = gguf_ ? prefix_ + "." + std::string(gguf) : std::string(hf);
  if (!gguf_) return value(hf);
  const Json& all = object();
  if (gguf.empty() || !all.is_object()) return nullptr;
  const auto found = all.find(*name);
  return found == all.end() || found->is_null() ? nullptr : &*found;
}

const Json* ConfigReader::value(std::string_view hf) const {
  if (gguf_ || hf.empty()) return nullptr;
  const Json& all = names(hf) ? object() : class_defaults_;
  const auto found = all.find(hf);
  return found == all.end() || found->is_null() ? nullptr : &*found;
}

std::string ConfigReader::class_default(std::string_view hf) const {
  const auto found = class_defaults_.find(hf);
  return found != class_defaults_.end() && found->is_string() ? found->get<std::string>() : "";
}

bool ConfigReader::names(std::string_view hf) const {
  return !gguf_ && object().is_object() && object().contains(hf);
}

std::optional<int64_t> ConfigReader::maybe_int(std::string_view hf, std::string_view gguf) {
  std::string name;
  const Json* value = find(hf, gguf, &name);
  if (!value) return std::nullopt;
  // Some tools write 4096.0.
  if (value->is_number_float()) {
    const double number = value->get<double>();
    if (std::fabs(number) < 9e15 && number == std::floor(number))
      return remember(gguf, static_cast<int64_t>(number));
  }
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) {
    complain(Refusal::kType, name + " must be an integer, is " + dump_json(*value).substr(0, 80));
    return std::nullopt;
  }
  return remember(gguf, value->get<int64_t>());
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
  return remember(gguf, gguf_ ? shortest_decimal(number) : number);
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
  return remember(gguf, value->get<bool>());
}

std::optional<std::string> ConfigReader::maybe_string(std::string_view hf, std::string_view gguf) {
  std::string name;
  const Json* value = find(hf, gguf, &name);
  if (!value) return std::nullopt;
  if (!value->is_string()) {
    complain(Refusal::kType, name + " must be a string, is " + dump_json(*value).substr(0, 80));
    return std::nullopt;
  }
  return remember(gguf, value->get<std::string>());
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

Status ConfigReader::finish(const std::string& path, ModelInfo* info) const {
  info->gguf.values.insert(gguf_values_.begin(), gguf_values_.end());  // what families set stays
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

std::string folder_name(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const size_t slash = path.find_last_of('/', end);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(begin, end - begin + 1);
}

}  // namespace pome
