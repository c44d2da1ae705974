// What a GGUF file of a decoder says beside its weights: the keys that ConfigReader did not meet
// under the names of GGUF, the rotation, and what readers of the format cannot be told.
#pragma once

#include "models/blocks.h"

namespace pome {

// Completes info->gguf. Rope factors that came from a GGUF file are there already.
void complete_gguf(const DecoderConfig& config, ModelInfo* info);

}  // namespace pome
