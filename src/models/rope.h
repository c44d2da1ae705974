// Rotary position embedding: what configurations say of it, in any of their styles, and the
// frequencies that follow.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"

namespace pome {

struct RopeConfig {
  int64_t rotary_dim = 0;  // even
  // What exponents are divided by: rotary_dim, or one less where a factor made that odd.
  int64_t frequency_dim = 0;
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

// How a family's configurations spell it.
struct RopeKeys {
  int64_t head_dim = 0;
  double theta = 10000;  // where none is given
  // The part of each head that rotates where none is given; 0: the family always turns all of it.
  double partial_rotary_factor = 0;
  std::string_view theta_key = "rope_theta", partial_key = "partial_rotary_factor";
  bool yarn_is_longrope = false;  // as the first Phi-3 releases called it
  // Read instead of rope_scaling and rope_parameters: those of one kind of layer.
  const Json* parameters = nullptr;
  // Where config.json has neither of the two.
  const Json* absent = nullptr;
};
// The parameters are rope_scaling or else rope_parameters; theta and the partial factor stand
// within them or beside them, original_max_position_embeddings beside them or within them.
RopeConfig read_rope(ConfigReader& config, const RopeKeys& keys);
// 0.1 mscale ln(factor) + 1 (1 for factors up to 1): what YaRN multiplies cos and sin by (Peng et
// al. 2023, arXiv 2309.00071).
double yarn_mscale(double factor, double mscale = 1);
// Takes the short or the long factors for `context` positions of BuildOptions.
void choose_rope_factors(int64_t max_position_embeddings, int64_t context, RopeConfig* rope);
// theta^(-2i/d) with the scaling applied, [rotary_dim / 2]. `factors` (GGUF rope_freqs) divide when
// not empty.
std::vector<float> inverse_frequencies(const RopeConfig& rope, std::span<const float> factors = {});

}  // namespace pome
