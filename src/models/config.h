// Configuration values of a checkpoint under their Hugging Face names, whatever the file calls
// them.
//
// ConfigReader reads one value from config.json or, for GGUF, from metadata under the mapped key,
// checks its type and range, and collects every complaint, so that one error lists them all.
//
// What is read under both names is remembered under that of GGUF, which is how a GGUF file of the
// model comes to say it.
//
// A key that config.json does not have takes the value that the family's configuration class in
// transformers gives it; null is a value of its own ("none", "derive it").
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/graph.h"

namespace pome {

class ConfigReader {
 public:
  // class_defaults: an object of what the configuration class fills in, for config.json only.
  explicit ConfigReader(const Checkpoint& checkpoint, std::string_view class_defaults = "{}");
  bool is_gguf() const { return gguf_; }

  // hf: key in config.json; gguf: key behind the architecture ("block_count"), empty when GGUF has
  // none.
  std::optional<int64_t> maybe_int(std::string_view hf, std::string_view gguf);
  std::optional<double> maybe_number(std::string_view hf, std::string_view gguf);
  std::optional<bool> maybe_bool(std::string_view hf, std::string_view gguf);
  std::optional<std::string> maybe_string(std::string_view hf, std::string_view gguf);
  // Required, within [least, most]; a missing or bad value is collected and `least` returned.
  int64_t integer(std::string_view hf, std::string_view gguf, int64_t least, int64_t most);
  double positive(std::string_view hf, std::string_view gguf,
                  std::optional<double> fallback = std::nullopt);
  // Of config.json, or else what the class fills in; null when that is null or there is none.
  const Json* value(std::string_view hf) const;
  // What the class fills in, for GGUF files too; empty when it has no such string.
  std::string class_default(std::string_view hf) const;
  bool names(std::string_view hf) const;  // the key stands in config.json, be it null
  const Json& object() const;             // the whole config.json (or GGUF metadata)
  const std::string& prefix() const { return prefix_; }

  void complain(Refusal refusal, std::string message);
  // Unsupported wishes are reported before malformed values.
  void unsupported(std::string message);
  Status finish(const std::string& path, ModelInfo* info) const;

 private:
  const Json* find(std::string_view hf, std::string_view gguf, std::string* name) const;
  template <typename T>
  T remember(std::string_view gguf, T value) {
    if (!gguf.empty()) gguf_values_[std::string(gguf)] = value;
    return value;
  }
  const Checkpoint& checkpoint_;
  Json class_defaults_;
  bool gguf_;
  std::string prefix_;
  std::map<std::string, ConfigValue> gguf_values_;
  Refusal refusal_ = Refusal::kNone;
  std::vector<std::string> complaints_, unsupported_;
};

// "gemma-2b" of "/models/gemma-2b/": what a model without a name of its own is called.
std::string folder_name(const std::string& path);

}  // namespace pome
