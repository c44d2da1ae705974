// Which tensors a checkpoint of each family has: one row per weight, both names, the shape in terms
// of the config, and what the weight does (which sets its statistics).
#pragma once

#include <span>
#include <string_view>

#include "shapes.h"

namespace pome::random_model {

// Symbols of the shapes in the tables.
enum class Dim : uint8_t {
  kNone,
  kVocab,
  kHidden,
  kFf,
  kTwoFf,
  kQ,
  kKv,
  kQkv,
  kHeads,
  kExperts,
  kExpertFf,
  kTwoExpertFf,
  kSharedFf,
  // Multi-head latent attention: queries, the compressed keys and values with the rotary part, the
  // latent, what is expanded from it, and what the heads give out.
  kLatentQ,
  kLatentIn,
  kLatent,
  kLatentOut,
  kLatentHeads
};

struct Row {
  // '#' is the layer, '@' the expert: a row with '@' stands for one tensor per expert.
  std::string_view hf_name, gguf_name;
  Dim rows, columns;
  Role role;
  Part part = Part::kOther;
  Dim outer = Dim::kNone;  // stacked experts
  Stored stored = Stored::kFloat;
};

struct Family {
  std::string_view model_type;
  std::span<const Row> before, layer, after;
  std::span<const Row> dense_layer = {};  // of the first layers of a mixture, where they differ
  bool has_gguf_names = false;
  bool has_biases = false;  // known and in the table
};

// Null for a family without tables.
const Family* find_family(std::string_view model_type);
std::string family_names();  // "llama, phi3, ..."

}  // namespace pome::random_model
