// Rotary position embedding: what configurations say of it, in any of their styles, and the
// frequencies that follow.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "models/config.h"

namespace pome {

struct RopeConfig {
  int64_t rotary_dim = 0;  // even
  // What exponents are divided by: rotary_dim, or one less where a factor made that odd.
  int64_t frequency_dim = 0;
  double theta = 10000;
  std::string type = "default";  // "linear", "dynamic", "llama3", "yarn", "longrope"
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position_embeddings = 0;  // "dynamic": max_position_embeddings
  double attention_factor = 1;                   // scale of cos and sin
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
// Settles what depends on the length that a session declares (`context` of BuildOptions): longrope
// takes its short or its long factors, "dynamic" turns more slowly for more positions than
// max_position_embeddings.
void declare_length(int64_t max_position_embeddings, int64_t context, RopeConfig* rope);
// Positions for such a session: max_position_embeddings, or as many more as were declared and
// dynamic scaling reaches (kStretchedPositions of ModelInfo::config, where there is such scaling).
inline constexpr const char* kStretchedPositions = "stretched_position_embeddings";
int64_t positions_of(const ModelInfo& info, int64_t context);
// theta^(-2i/d) with the scaling applied, [rotary_dim / 2]. `factors` (GGUF rope_freqs) divide when
// not empty.
std::vector<float> inverse_frequencies(const RopeConfig& rope, std::span<const float> factors = {});

}  // namespace pome
