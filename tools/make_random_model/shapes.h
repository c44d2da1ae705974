// From a Hugging Face config.json to the list of tensors that such a model has.
//
// One row of a table per weight of a family: both names, the shape in terms of the config, and what
// the weight does (which sets its statistics). Families: llama, phi3.
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
  kEmbedding,  // token embedding; also the head where they are tied
  kInput,      // projection that reads the residual stream (and the head)
  kResidual,   // projection that writes to it
  kTable       // values given, GGUF only
};
// What mixtures of GGUF types tell apart.
enum class Part : uint8_t { kOther, kAttentionV, kAttentionOutput, kDown, kTokenEmbedding, kHead };

struct TensorSpec {
  std::string hf_name, gguf_name;  // hf_name is empty where the checkpoint has no such tensor
  Shape shape;
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
  double rms_norm_eps = 0, rope_theta = 0;
  bool tied = false;
  int64_t bos_token_id = 0, eos_token_id = 0;
  Json rope_scaling;  // null or an object
  std::vector<TensorSpec> tensors;
};

// `layers` > 0 overrides num_hidden_layers. kUnsupported for another family, kBadInput for a
// config whose numbers make no model.
Result<ModelShape> read_shape(const Json& config, int64_t layers);

}  // namespace pome::random_model
