// Configuration values of a checkpoint under their Hugging Face names, whatever the file calls
// them.
//
// ConfigReader reads one value from config.json or, for GGUF, from metadata under the mapped key,
// checks its type and range, and collects every complaint, so that one error lists them all.
#pragma once

#include <cstdint>
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
  // `gguf_prefix` is general.architecture ("llama"), empty for Hugging Face.
  explicit ConfigReader(const Checkpoint& checkpoint);
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
  const Json& object() const;  // the whole config.json (or GGUF metadata)
  const std::string& prefix() const { return prefix_; }

  void complain(Refusal refusal, std::string message);
  // Unsupported wishes are reported before malformed values.
  void unsupported(std::string message);
  Status finish(const std::string& path) const;

 private:
  const Json* find(std::string_view hf, std::string_view gguf, std::string* name) const;
  const Checkpoint& checkpoint_;
  bool gguf_;
  std::string prefix_;
  Refusal refusal_ = Refusal::kNone;
  std::vector<std::string> complaints_, unsupported_;
};

// Rotary position embedding of a config in either style (rope_theta + rope_scaling, or
// rope_parameters). Implemented in rope.cc.
struct RopeConfig {
  int64_t rotary_dim = 0;
  double theta = 10000;
  // "default", "linear", "dynamic" (as "default": it changes nothing within
  // max_position_embeddings), "llama3", "yarn", "longrope".
  std::string type = "default";
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position_embeddings = 0;
  double attention_factor = 1;  // scale of cos and sin
  // YaRN: rotations within the original context above which a dimension stays as it is, and below
  // which it is interpolated; `truncate` rounds the bounds to whole dimensions.
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;
  // YaRN: 0 when absent. Families with latent attention scale their logits by mscale_all_dim.
  double mscale = 0, mscale_all_dim = 0;
  // longrope: divisors of the frequencies, [rotary_dim / 2] each.
  std::vector<float> short_factors, long_factors;
  // longrope: the long set is in use when more positions than the original ones are declared.
  bool use_long_factors = false;
};
// `object` holds the rope keys when they are not in config.json itself (rope_parameters of one
// layer type); rope_theta, rope_scaling and rope_parameters are read from it. partial_rotary_factor
// may stand beside or within them.
RopeConfig read_rope(ConfigReader& config, int64_t head_dim, const Json* object = nullptr);
// 0.1 mscale ln(factor) + 1 (1 for factors up to 1): what YaRN multiplies cos and sin by (Peng et
// al. 2023, arXiv 2309.00071).
double yarn_mscale(double factor, double mscale = 1);
// theta^(-2i/d) with the scaling applied, [rotary_dim / 2]. `factors` (GGUF rope_freqs) divide when
// not empty.
std::vector<float> inverse_frequencies(const RopeConfig& rope, std::span<const float> factors = {});

std::optional<Activation> parse_activation(std::string_view hidden_act);

}  // namespace pome
