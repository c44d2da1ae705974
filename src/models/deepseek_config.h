// What configurations of DeepSeek V2 and V3 say.
#pragma once

#include "models/blocks.h"

namespace pome {

struct DeepseekConfig : DecoderConfig {
  int64_t q_rank = 0, kv_rank = 0;  // q_rank 0: q has one projection
  int64_t nope_dim = 0, rope_dim = 0, value_dim = 0;
  double attention_scale = 1;
  int64_t dense_layers = 0, shared_width = 0;
  bool sigmoid = false;
  int64_t qk_dim() const { return nope_dim + rope_dim; }
};

Result<DeepseekConfig> read_deepseek(const Checkpoint& checkpoint);

}  // namespace pome
