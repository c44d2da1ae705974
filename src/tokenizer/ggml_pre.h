// The names of tokenizer.ggml.pre in GGUF files: how the BPE tokenizer of a model cuts text.
//
// Names as of llama.cpp's llama-vocab.cpp (August 2026); what a name stands for is what the
// tokenizer.json of the named model says, where the two differ.
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer_steps.h"

namespace pome {

struct GgmlPre {
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;  // ends with ByteLevel, unless `characters`
  bool ignore_merges = false, add_bos = false;
  bool characters = false;  // BPE over characters with U+2581 for spaces and byte tokens
};
std::optional<GgmlPre> steps_of_ggml_pre(std::string_view name);

}  // namespace pome
