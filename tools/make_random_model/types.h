// What --type names: one encoding for all matrices, or a mixture of GGUF types.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "encoding/encoding.h"
#include "shapes.h"

namespace pome::random_model {

struct TypeChoice {
  std::string name;
  EncodingKind base = EncodingKind::kBF16;
  std::optional<int> file_type;  // GGUF's general.file_type, where the name has one
  bool is_mixture = false;
};
// kUsage for an unknown name.
Result<TypeChoice> parse_type(std::string_view name);
// The type of one tensor in a GGUF file: F32 for vectors, else what the choice says; a matrix whose
// columns the type's block does not divide falls back as llama.cpp's quantiser does.
EncodingKind gguf_type_of(const TypeChoice& choice, const TensorSpec& spec,
                          const ModelShape& model);

}  // namespace pome::random_model
