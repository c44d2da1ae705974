// Layers with experts, on the blocks of decoders: what configurations say of experts, and the
// stacked weights of one layer. moe.h has the routers.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "models/blocks.h"

namespace pome {

struct MixtureKeys {
  // The number of experts, under the first of these names that config.json has.
  std::string_view experts = "num_experts", also = "num_local_experts";
  std::string_view expert_width = "moe_intermediate_size";
};
// Fills router (experts, experts_per_token) and expert_width. Complaints go to `config`.
void read_mixture(ConfigReader& config, const MixtureKeys& keys, DecoderConfig* out);
// Which layers have experts, of the Qwen line: decoder_sparse_step, mlp_only_layers.
std::vector<bool> read_sparse_layers(ConfigReader& config, const DecoderConfig& decoder);

// Logits of the router, `hf` is its module.
ValueId router_logits(DecoderLayer& layer, ValueId h, const std::string& hf, bool bias = false);

struct ExpertNames {
  std::string hf;              // "mlp.experts"; one tensor per expert: "mlp.experts.3.gate_proj"
  std::string gate, up, down;  // "gate_proj", "up_proj", "down_proj"
  // The stacked form of newer checkpoints: "mlp.experts.gate_up_proj" [E, 2F, K], gate rows first.
  std::string fused = "mlp.experts";
};
// Mixes the gated experts of a layer; experts have no biases.
ValueId gated_experts(DecoderLayer& layer, ValueId h, ValueId mix, const ExpertNames& names);

}  // namespace pome
