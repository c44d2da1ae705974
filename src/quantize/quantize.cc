#include "quantize/quantize.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/checked.h"
#include "encoding/affine_blocks.h"
#include "quantize/repack.h"
#include "quantize/vector_palette.h"

namespace pome {
namespace {

constexpr int64_t kBlock = 32;  // columns that share an int4 scale
constexpr int64_t kGroup = 16;  // rows that share a table

struct Scheme {
  std::string_view name;
  Encoding encoding;
};
const std::array<Scheme, 13> kSchemes = {{
    {"f16", Encoding::plain(EncodingKind::kF16)},
    {"f32", Encoding::plain(EncodingKind::kF32)},
    {"int8", Encoding::int_blocks(8, 0)},
    {"int4", Encoding::int_blocks(4, kBlock)},
    {"lut8", Encoding::lut(8, kGroup)},
    {"lut6", Encoding::lut(6, kGroup)},
    {"lut4", Encoding::lut(4, kGroup)},
    {"lut3", Encoding::lut(3, kGroup)},
    {"lut2", Encoding::lut(2, kGroup)},
    {"lut4x2", Encoding::vector_lut(4, 2, kGroup)},
    {"lut6x2", Encoding::vector_lut(6, 2, kGroup)},
    {"lut8x2", Encoding::vector_lut(8, 2, kGroup)},
    {"lut8x4", Encoding::vector_lut(8, 4, kGroup)},
}};

Result<Encoding> parse_scheme(std::string_view name) {
  std::string known;
  for (const Scheme& scheme : kSchemes) {
    if (scheme.name == name) return scheme.encoding;
    known += (known.empty() ? "" : " ") + std::string(scheme.name);
  }
  return usage_error("unknown scheme \"" + escape_for_terminal(name) + "\"; known are " + known +
                     ", and sparse-f16 sparse-int4 and the like");
}

// ---- the ladder
// ----------------------------------------------------------------------------------

struct Matrix {
  int64_t rows = 0, columns = 0;
  int64_t rows_of_one = 0;  // of one expert where experts are stacked, else rows
};

struct Choice {
  Encoding encoding;
  std::string fallback;
};

std::optional<uint64_t> bytes_of(const Encoding& encoding, const Matrix& matrix) {
  const auto layout = encoded_layout(encoding, matrix.rows, matrix.columns);
  if (!layout.ok()) return std::nullopt;
  return layout->total_bytes();
}

bool smaller_than_f16(const Encoding& encoding, const Matrix& matrix) {
  const auto bytes = bytes_of(encoding, matrix);
  const auto plain = bytes_of(Encoding::plain(EncodingKind::kF16), matrix);
  return bytes && plain && *bytes < *plain;
}

// One scale per row, or plain binary16 where rows are so short that a scale does not pay.
Choice choose_int8(const Matrix& matrix, std::string why) {
  const Encoding per_row = Encoding::int_blocks(8, matrix.columns);
  if (smaller_than_f16(per_row, matrix)) return {per_row, std::move(why)};
  const std::string reason = "scales and tables would make it larger than f16";
  return {Encoding::plain(EncodingKind::kF16), why.empty() ? reason : why + "; " + reason};
}

// Blocks of the wished size or of a smaller one that divides the row, then one scale per row.
Choice choose_blocks(int bits, const Matrix& matrix, int64_t wished) {
  std::string why;
  for (int64_t block = wished; block >= std::min<int64_t>(8, wished); block /= 2) {
    if (matrix.columns % block == 0) {
      if (block != wished) why += ": blocks of " + std::to_string(block);
      return {Encoding::int_blocks(bits, block), why};
    }
    if (why.empty()) {
      why = std::to_string(matrix.columns) + " columns are not a multiple of " +
            std::to_string(wished);
    }
  }
  const Encoding per_row = Encoding::int_blocks(bits, matrix.columns);
  if (smaller_than_f16(per_row, matrix)) return {per_row, why + ": one scale per row"};
  return choose_int8(matrix, why);
}

// Tables cost no more than a quarter of the indices.
bool tables_pay(int bits, int64_t group, int64_t columns) {
  const auto indices = checked_mul<int64_t>(group, columns);
  return !indices || (int64_t{16} << bits) <= *indices * bits / 4;
}

Choice choose_lut(const Matrix& matrix, const Encoding& wished) {
  const int bits = wished.bits;
  std::string why;
  if (matrix.rows_of_one % wished.group == 0) {
    if (smaller_than_f16(wished, matrix)) return {wished, why};
    why = "tables of " + std::to_string(wished.group) + " rows would make it larger than f16";
  } else {
    why = std::to_string(matrix.rows_of_one) + " rows are not a multiple of " +
          std::to_string(wished.group);
    for (int64_t group = wished.group / 2; group >= 1; group /= 2) {
      const Encoding smaller = Encoding::lut(bits, group);
      if (matrix.rows_of_one % group != 0 || !tables_pay(bits, group, matrix.columns)) continue;
      return {smaller, why + ": groups of " + std::to_string(group)};
    }
  }
  const Encoding per_tensor = Encoding::lut(bits, matrix.rows);
  if (matrix.rows == matrix.rows_of_one && smaller_than_f16(per_tensor, matrix)) {
    return {per_tensor, why + ": one table for all rows"};
  }
  return choose_int8(matrix, why);
}

// The smallest number of rows whose tables cost no more than an eighth of their indices, up to one
// table for all.
Choice choose_vectors(const Matrix& matrix, const Encoding& wished) {
  std::string why;
  const int64_t most = matrix.rows_of_one;
  for (int64_t group = wished.group; most % wished.vector == 0; group = std::min(2 * group, most)) {
    const Encoding tried = Encoding::vector_lut(wished.bits, wished.vector, group);
    const auto indices = checked_mul<int64_t>(group / wished.vector, matrix.columns);
    const bool pays =
        !indices || (int64_t{16} * wished.vector << wished.bits) <= *indices / 8 * wished.bits;
    if (most % group == 0 && group % wished.vector == 0 && pays) return {tried, why};
    why = "groups of " + std::to_string(std::min(2 * group, most)) +
          " rows: smaller ones do not divide the rows, or their tables cost too much";
    if (group >= most) break;
  }
  why = "tables of vectors cost more than an eighth of the indices";
  if (most % wished.vector != 0)
    why = std::to_string(most) + " rows are not whole vectors of " + std::to_string(wished.vector);
  Choice out =
      choose_lut(matrix, Encoding::lut(wished.bits / static_cast<int>(wished.vector), kGroup));
  out.fallback = why + (out.fallback.empty() ? "" : "; " + out.fallback);
  return out;
}

Choice choose(const Encoding& wished, const Matrix& matrix) {
  if (matrix.rows == 0 || matrix.columns == 0) {
    return {Encoding::plain(EncodingKind::kF16), "no elements"};
  }
  switch (wished.kind) {
    case EncodingKind::kInt:
      return wished.block == 0 ? choose_int8(matrix, {})
                               : choose_blocks(wished.bits, matrix, wished.block);
    case EncodingKind::kLut:
      return choose_lut(matrix, wished);
    case EncodingKind::kVectorLut:
      return choose_vectors(matrix, wished);
    default:
      return {wished, {}};
  }
}

// nullopt: the constant stays as it is.
std::optional<Encoding> wished_for(const Constant& constant, const QuantRecipe& recipe) {
  const size_t rank = constant.data->shape().size();
  if (rank == 0) return std::nullopt;
  if (const auto found = recipe.chosen.find(constant.name);
      found != recipe.chosen.end() && is_allocatable(constant))
    return found->second;
  const Encoding small = Encoding::plain(recipe.small);
  switch (constant.role) {
    case Constant::Role::kMatrix:
      return rank >= 2 ? recipe.matrices : small;
    case Constant::Role::kEmbedding:
      return rank >= 2 ? recipe.embedding : small;
    case Constant::Role::kHead:
      return rank >= 2 ? recipe.head : small;
    case Constant::Role::kNorm:
    case Constant::Role::kBias:
      return small;
    case Constant::Role::kTable:
      break;
  }
  // Inverse frequencies and what the builder computes need f32; a learned table does not.
  if (rank >= 2) return small;
  return std::nullopt;
}

// The same with a mask, where that is smaller.
Status choose_sparse(const PruneRule& rule, const Constant& constant, const Matrix& matrix,
                     Choice* chosen) {
  const EncodingKind kind = chosen->encoding.kind;
  if (kind != EncodingKind::kF16 && kind != EncodingKind::kInt && kind != EncodingKind::kLut)
    return {};
  if (matrix.rows == 0 || matrix.columns == 0) return {};
  const auto keep = values_kept(rule, *constant.data);
  if (!keep.ok()) return Status(keep.status()).at("tensor " + constant.name);
  const auto add = [&](const std::string& why) {
    chosen->fallback += (chosen->fallback.empty() ? "" : "; ") + why;
  };
  if (rule.m > 0 && matrix.columns % rule.m != 0)
    add(std::to_string(matrix.columns) + " columns are not a multiple of " +
        std::to_string(rule.m) + ": the same share of each row");
  const Encoding sparse = Encoding::sparse(chosen->encoding, *keep);
  const auto bytes = bytes_of(sparse, matrix), dense = bytes_of(chosen->encoding, matrix);
  if (bytes && dense && *bytes < *dense)
    chosen->encoding = sparse;
  else
    add("not pruned: with its mask it would be no smaller than dense");
  return {};
}

ConstantDataPtr make(const Constant& constant, const Encoding& encoding,
                     const QuantRecipe& recipe) {
  if (encoding.is_sparse())
    return pruned_constant(constant.data, encoding, *recipe.prune, constant.name);
  if (encoding.kind == EncodingKind::kVectorLut)
    return vector_constant(constant.data, encoding, constant.name);
  return encoded_constant(constant.data, encoding, constant.name);
}

bool stays_with_minima(const Constant& constant, const Encoding& chosen) {
  return is_affine4(constant.data->encoding().kind) &&
         chosen == Encoding::int_blocks(4, kAffineGroup) && constant.data->shape().size() == 2;
}

}  // namespace

Status check_prunable(const QuantRecipe& recipe) {
  const EncodingKind kind = recipe.matrices.kind;
  if (kind == EncodingKind::kF16 || kind == EncodingKind::kInt || kind == EncodingKind::kLut)
    return {};
  return usage_error("pruned matrices cannot be stored as " + recipe.scheme)
      .hint("choose f16, int8, int4 or a palette without vectors");
}

bool is_allocatable(const Constant& constant) {
  using Role = Constant::Role;
  return constant.data->shape().size() >= 2 &&
         (constant.role == Role::kMatrix || constant.role == Role::kEmbedding ||
          constant.role == Role::kHead);
}

Result<QuantRecipe> parse_recipe(std::string_view weights,
                                 std::optional<std::string_view> embedding) {
  QuantRecipe recipe;
  recipe.scheme = std::string(weights);
  constexpr std::string_view kSparse = "sparse-";
  if (weights.starts_with(kSparse)) {
    weights.remove_prefix(kSparse.size());
    recipe.prune = PruneRule();
  }
  POME_ASSIGN_OR_RETURN(recipe.matrices, parse_scheme(weights));
  POME_ASSIGN_OR_RETURN(recipe.embedding, parse_scheme(embedding.value_or(weights)));
  recipe.head = recipe.embedding;
  if (recipe.matrices.kind == EncodingKind::kF32) recipe.small = EncodingKind::kF32;
  if (recipe.prune) POME_RETURN_IF_ERROR(check_prunable(recipe));
  return recipe;
}

Result<Quantized> quantize(const Graph& graph, const QuantRecipe& recipe) {
  Quantized result{graph, {}};
  for (Constant& constant : result.graph.constants) {
    const ConstantData& data = *constant.data;
    TensorChoice choice{constant.name, data.rows(), data.columns(), data.encoding(), {}};
    if (const auto wished = wished_for(constant, recipe)) {
      const Shape& shape = data.shape();
      const Matrix matrix = {data.rows(), data.columns(),
                             shape.size() >= 3 ? shape[shape.size() - 2] : data.rows()};
      Choice chosen = choose(*wished, matrix);
      if (recipe.prune && constant.role == Constant::Role::kMatrix && shape.size() >= 2)
        POME_RETURN_IF_ERROR(choose_sparse(*recipe.prune, constant, matrix, &chosen));
      // Refuses sizes that overflow before anything is read.
      const auto layout = encoded_layout(chosen.encoding, data.rows(), data.columns());
      if (!layout.ok()) return Status(layout.status()).at("tensor " + constant.name);
      if (recipe.keeps_minima && stays_with_minima(constant, chosen.encoding)) {
        chosen.encoding = data.encoding();
        choice.kept_integers = true;
      } else if (auto kept = repacked_integers(constant.data, chosen.encoding, constant.name)) {
        constant.data = std::move(kept);
        choice.kept_integers = true;
      } else {
        constant.data = make(constant, chosen.encoding, recipe);
      }
      choice.used = chosen.encoding;
      choice.fallback = std::move(chosen.fallback);
    }
    result.tensors.push_back(std::move(choice));
  }
  return result;
}

Moments moments_of_tied(const Moments& head) {
  constexpr double kShare = 0.3;  // of the mean square of what the head reads; measured, and flat
  Moments out = head;
  const auto n = static_cast<size_t>(out.columns);
  double trace = 0;
  for (size_t j = 0; j < n; ++j)
    trace += head.second.empty() ? head.diagonal[j] : head.second[j * n + j];
  const auto more = static_cast<float>(kShare * trace / static_cast<double>(n));
  for (float& one : out.diagonal) one += more;
  for (size_t j = 0; j < n && !out.second.empty(); ++j) out.second[j * n + j] += more;
  return out;
}

std::vector<float> token_weights(std::span<const int32_t> ids, int64_t rows, int64_t first) {
  constexpr float kUnseen = 0.5f;  // of a token
  std::vector<float> out(static_cast<size_t>(rows), kUnseen);
  float all = kUnseen * static_cast<float>(rows);
  for (const int32_t id : ids) {
    if (id < first || id >= first + rows) continue;
    out[static_cast<size_t>(id - first)] += 1;
    all += 1;
  }
  for (float& weight : out) weight *= static_cast<float>(rows) / all;
  return out;
}

}  // namespace pome
