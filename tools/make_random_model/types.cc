#include "types.h"

namespace pome::random_model {
namespace {

using K = EncodingKind;

struct Mixture {
  std::string_view name;
  int file_type;
  K base;
  // The type of a part in layer `i` of `n`, as llama.cpp's tables have it (2026).
  K (*choose)(Part part, int64_t i, int64_t n);
};

// The first and last eighth of the layers, and every third between.
bool more_bits(int64_t i, int64_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

K q3_k_m(Part part, int64_t i, int64_t n) {
  if (part == Part::kAttentionV) return i < 2 ? K::kQ5_K : K::kQ4_K;
  if (part == Part::kDown) return i < n / 16 ? K::kQ5_K : K::kQ4_K;
  return part == Part::kAttentionOutput ? K::kQ4_K : K::kQ3_K;
}
K q4_k_s(Part part, int64_t i, int64_t n) {
  if (part == Part::kAttentionV) return i < 4 ? K::kQ5_K : K::kQ4_K;
  return part == Part::kDown && i < n / 8 ? K::kQ5_K : K::kQ4_K;
}
bool is_v_or_down(Part part) { return part == Part::kAttentionV || part == Part::kDown; }
K q4_k_m(Part part, int64_t i, int64_t n) {
  return is_v_or_down(part) && more_bits(i, n) ? K::kQ6_K : K::kQ4_K;
}
K q5_k_s(Part, int64_t, int64_t) { return K::kQ5_K; }
K q5_k_m(Part part, int64_t i, int64_t n) {
  return is_v_or_down(part) && more_bits(i, n) ? K::kQ6_K : K::kQ5_K;
}

constexpr Mixture kMixtures[] = {
    {"q3_k_m", 12, K::kQ3_K, q3_k_m}, {"q4_k_s", 14, K::kQ4_K, q4_k_s},
    {"q4_k_m", 15, K::kQ4_K, q4_k_m}, {"q5_k_s", 16, K::kQ5_K, q5_k_s},
    {"q5_k_m", 17, K::kQ5_K, q5_k_m},
};

struct FileType {
  K kind;
  int file_type;
};
constexpr FileType kFileTypes[] = {
    {K::kF32, 0},    {K::kF16, 1},     {K::kQ4_0, 2},     {K::kQ4_1, 3},    {K::kQ8_0, 7},
    {K::kQ5_0, 8},   {K::kQ5_1, 9},    {K::kQ2_K, 10},    {K::kQ3_K, 11},   {K::kQ4_K, 14},
    {K::kQ5_K, 16},  {K::kQ6_K, 18},   {K::kIQ2_XXS, 19}, {K::kIQ2_XS, 20}, {K::kIQ3_XXS, 23},
    {K::kIQ1_S, 24}, {K::kIQ4_NL, 25}, {K::kIQ3_S, 26},   {K::kIQ2_S, 28},  {K::kIQ4_XS, 30},
    {K::kIQ1_M, 31}, {K::kBF16, 32},   {K::kTQ1_0, 36},   {K::kTQ2_0, 37},  {K::kMXFP4, 38},
};

// What takes the place of a type with 256-weight blocks where they do not divide.
K smaller_blocks(K kind) {
  switch (kind) {
    case K::kQ4_K:
      return K::kQ5_0;
    case K::kQ5_K:
      return K::kQ5_1;
    case K::kQ6_K:
      return K::kQ8_0;
    case K::kQ2_K:
    case K::kQ3_K:
    case K::kTQ1_0:
    case K::kTQ2_0:
    case K::kQ2_0:
      return K::kQ4_0;
    default:
      return K::kIQ4_NL;
  }
}

const Mixture* find_mixture(std::string_view name) {
  for (const Mixture& mixture : kMixtures) {
    if (mixture.name == name) return &mixture;
  }
  return nullptr;
}

}  // namespace

Result<TypeChoice> parse_type(std::string_view name) {
  if (const Mixture* mixture = find_mixture(name)) {
    return TypeChoice{std::string(name), mixture->base, mixture->file_type, true};
  }
  std::string known;
  for (int k = 0; k < kEncodingKindCount; ++k) {
    const EncodingTraits& type = traits(static_cast<EncodingKind>(k));
    const bool weights = type.block_elements > 1 || type.kind == K::kF32 || type.kind == K::kF16 ||
                         type.kind == K::kBF16;
    if (!weights) continue;
    if (type.name == name) {
      TypeChoice choice{std::string(name), type.kind, std::nullopt, false};
      for (const FileType& entry : kFileTypes) {
        if (entry.kind == type.kind) choice.file_type = entry.file_type;
      }
      return choice;
    }
    known += " " + std::string(type.name);
  }
  for (const Mixture& mixture : kMixtures) known += " " + std::string(mixture.name);
  return usage_error("unknown type \"" + std::string(name) + "\"; known are" + known);
}

EncodingKind gguf_type_of(const TypeChoice& choice, const TensorSpec& spec,
                          const ModelShape& model) {
  if (spec.shape.size() < 2) return K::kF32;
  K kind = choice.base;
  if (choice.is_mixture) {
    const bool head =
        spec.part == Part::kHead || (spec.part == Part::kTokenEmbedding && model.tied);
    if (head) {
      kind = K::kQ6_K;
    } else if (spec.layer >= 0) {
      kind = find_mixture(choice.name)->choose(spec.part, spec.layer, model.num_hidden_layers);
    }
  }
  const int64_t columns = spec.shape.back();
  if (columns % traits(kind).block_elements == 0) return kind;
  kind = smaller_blocks(kind);
  return columns % traits(kind).block_elements == 0 ? kind : K::kF16;
}

}  // namespace pome::random_model
