// The names of tokenizer.ggml.pre in GGUF files: how the BPE tokenizer of a model cuts text.
//
// Names as of llama.cpp's llama-vocab.cpp (August 2026); what a name stands for is what the
// tokenizer.json of the named model says, where the two differ.
//
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
// The other way: a name whose steps cut a text full of every kind of character as these steps do,
// and that agrees on `ignore_merges` where one such does. nullopt: there is none.
std::optional<std::string_view> ggml_pre_of(const std::vector<PreTokenizerStep>& steps,
                                            bool ignore_merges);

}  // namespace pome
