// From a Hugging Face config.json to the list of tensors that such a model has.
//
// The tables of the families are in families.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace pome::random_model {

enum class Role : uint8_t {
  kNorm,       // gain of a normalisation
  kSmall,      // biases, sinks, gains that are stored minus one
  kEmbedding,  // token embedding; also the head where they are tied
  kInput,      // projection that reads the residual stream (and the head)
  kResidual,   // projection that writes to it
  kTable       // values given, GGUF only
};
// What mixtures of GGUF types tell apart.
enum class Part : uint8_t { kOther, kAttentionV, kAttentionOutput, kDown, kTokenEmbedding, kHead };

// Floats of the model's dtype, or the two byte tensors of published MXFP4 weights: codes
// [.., K / 32, 16], two to a byte, and exponents [.., K / 32].
enum class Stored : uint8_t { kFloat, kMxfp4Blocks, kMxfp4Scales };
inline constexpr int64_t kMxfp4Weights = 32;

struct TensorSpec {
  std::string hf_name, gguf_name;  // empty where the format has no such tensor
  Shape shape;                     // as stored
  Stored stored = Stored::kFloat;
  Role role = Role::kInput;
  Part part = Part::kOther;
  int64_t layer = -1;
  std::vector<float> values;  // kTable
};

struct ModelShape {
  std::string family;  // GGUF's general.architecture
  int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0, vocab_size = 0;
  int64_t max_position_embeddings = 0, sliding_window = 0;
  // Mixtures of experts; latent attention. 0 where there are none.
  int64_t num_experts = 0, expert_size = 0, num_shared_experts = 0, dense_layers = 0;
  int64_t kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  double rms_norm_eps = 0, rope_theta = 0;
  bool tied = false, has_gguf_names = false;
  int64_t bos_token_id = 0, eos_token_id = 0;
  Json rope_scaling;  // null or an object
  std::vector<TensorSpec> tensors;
};

// `layers` > 0 overrides num_hidden_layers. kUnsupported for another family, kBadInput for a
// config whose numbers make no model.
Result<ModelShape> read_shape(const Json& config, int64_t layers);

}  // namespace pome::random_model
