// From a scheme name to a graph whose constants are encoded on the fly.
//
// Quantising changes the encoding of constants and nothing else: each chosen constant's data is
// replaced by one that encodes a tile of rows when it is read. Bytes are deterministic for every
// thread count and instruction set.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "encoding/encoding.h"
#include "graph/graph.h"
#include "quantize/fed_rounding.h"
#include "quantize/feedback.h"
#include "quantize/prune.h"
#include "quantize/statistics.h"

namespace pome {

// What --weights and --embedding name.
struct QuantRecipe {
  std::string scheme;  // "int4", as typed
  // Wished for; shapes may force a fallback. A block of 0: one scale per row.
  Encoding matrices, embedding, head;
  EncodingKind small = EncodingKind::kF16;  // norms, biases, tables
  // The target can say a minimum for each block: matrices that are stored in q4_1 or q4_k and shall
  // be int4 in blocks of 32 stay as they are.
  bool keeps_minima = false;
  std::optional<PruneRule> prune;  // of matrices
  // By name of the constant, instead of the above: what an allocation chose. Wishes too.
  std::map<std::string, Encoding> chosen;
};
// Whether a recipe may say how this constant is stored: weights, not norms, biases or tables.
bool is_allocatable(const Constant& constant);
// "f16 f32 int8 int4 lut8 lut6 lut4 lut3 lut2", palettes of vectors "lut4x2 lut6x2 lut8x2 lut8x4",
// and, for pruned matrices, "sparse-" in front of f16, an integer or a palette; an unknown name is
// kUsage and lists the known ones. The head follows the embedding, which is never pruned.
Result<QuantRecipe> parse_recipe(std::string_view weights,
                                 std::optional<std::string_view> embedding = std::nullopt);
// kUsage where what is not pruned cannot be stored beside a mask.
Status check_prunable(const QuantRecipe& recipe);

struct TensorChoice {
  std::string name;
  int64_t rows = 0, columns = 0;
  Encoding used;
  std::string fallback;        // empty, or why it is not what was wished for
  bool kept_integers = false;  // the checkpoint's own integers and scales: nothing was rounded
};
struct Quantized {
  Graph graph;
  std::vector<TensorChoice> tensors;  // one per constant, same order
};
// Ladder where the shape does not divide: smaller group / block (16 -> 8 -> 4 -> 2 -> 1; 32 -> 16
// -> 8), then per tensor / per row, int8, f16. A rung whose tables would cost more than a quarter
// of the indices (smaller groups), or that would not be smaller than f16, is passed over. Groups of
// stacked experts never straddle two experts. Constants of role kTable below rank 2 (inverse
// frequencies, scalars) and all scalars stay as they are.
Result<Quantized> quantize(const Graph& graph, const QuantRecipe& recipe);

// Encodes `data` tile by tile when read: plain f16, bf16 or f32, kInt, kLut, or the blocks of GGUF
// that can_fit_blocks(). Values that are not
// finite or that binary16 would turn into infinity (65520 and beyond; not checked for f32) are
// kBadInput when read, naming the tensor `name`, row and column. Where the source already has the
// plain encoding its bytes are checked and passed through. canonical() is that of `data`. The
// encoding must divide the shape (encoded_layout).
// `weights`, for blocks: how much the error of each column counts; with stacked experts one set of
// columns for all or one for each. Empty: all the same.
ConstantDataPtr encoded_constant(ConstantDataPtr data, const Encoding& encoding,
                                 std::string name = {}, std::vector<float> weights = {});

// The same constant in the same encoding, rounded with error feedback (feedback.h), which then
// takes the place of `weights`. `feedback`: one for all rows, or one for each of stacked experts;
// null for an expert: its values are rounded as they were. `row_weights`: how much the error of
// each row counts where rows share a table; empty: alike. Null where `data` is not of
// encoded_constant() or its encoding leaves nothing to choose (f16, bf16, f32).
ConstantDataPtr with_feedback(const ConstantDataPtr& data, std::vector<FeedbackPtr> feedback,
                              const RoundingOptions& options = {},
                              std::vector<float> row_weights = {});
// Row weights of a table with a row for each token from `first` on, mean 1: how often a text uses
// it, and half a time more.
std::vector<float> token_weights(std::span<const int32_t> ids, int64_t rows, int64_t first = 0);
// For a table that is both embedding and head, from what the head reads: a row's error also stays
// in the residual of its own token, where no direction is known to count more than another.
Moments moments_of_tied(const Moments& head);
// The same constant, with other values to be rounded: `source` has its shape, and canonical() stays
// what it was. Null where `data` is not of encoded_constant().
ConstantDataPtr with_source(const ConstantDataPtr& data, ConstantDataPtr source);

}  // namespace pome
