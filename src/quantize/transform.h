// Transforms that leave what a model computes as it is, and make it easier to round.
//
// Each is a pure Graph -> Graph: constants change lazily, canonical() stays that of the stored
// data, and so the source hash stays the model's. They see the graph alone: norms, who reads them,
// who adds to the residual stream, attention, feed-forward networks; no family is named.
// Weights that are stored as integers or in blocks are left as they are: moving them would cost
// what they hold.
//
// All are exact but for the rounding of f32, and deterministic.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/graph.h"
#include "graph/split.h"
#include "quantize/statistics.h"

namespace pome {

struct Transformed {
  Graph graph;
  ActivationStatistics statistics;  // of what meets the weights now
  int64_t places = 0;               // norms, heads, networks that were changed
  std::string obstacle;             // why there are none, or not all
};

// The gains of norms go into the weights that read them: W diag(g) in the place of W, ones in the
// place of g. Where all of those are products that nothing else reads.
Result<Transformed> fold_norm_gains(const Graph& graph, const ActivationStatistics& statistics);

// The residual stream in another basis: what writes to it and what reads it is rotated by one
// random orthogonal matrix. Needs norms without gains (fold_norm_gains). A place for the gain of a
// norm before a tied head is made with one more product where `may_insert`.
Result<Transformed> rotate_residual(const Graph& graph, const ActivationStatistics& statistics,
                                    uint64_t seed, bool may_insert);

// Values of attention in another basis, one for each head of the cache: rows of the value
// projection and columns of the output projection.
Result<Transformed> rotate_values(const Graph& graph, const ActivationStatistics& statistics,
                                  uint64_t seed);

// The hidden units of feed-forward networks in the order of their size, so that those which share
// a table of values, or a scale in the matrix behind them, are alike.
Result<Transformed> order_units(const Graph& graph, const ActivationStatistics& statistics);

// The units of gated networks are scaled so that the columns of the matrix behind them are more
// alike. Rows of the factor that is not activated take the scale back, which palettes bear where
// units are in order.
Result<Transformed> scale_units(const Graph& graph, const ActivationStatistics& statistics);

// Parts of weights that may get bits of their own (graph/split.h), hidden units in the order of
// their size before. Reads every constant, for the source hash, which stays the model's.
Result<Split> split_weights(const Graph& graph, ThreadPool* pool);

// ---- choosing
// ----------------------------------------------------------------------------------

inline constexpr uint64_t kTransformSeed = 0x706F6D65;

struct TransformOptions {
  std::string names = "auto";  // "auto", "none", or names with commas between them
  bool may_insert = false;     // whether the target can hold products that the source has not
  uint64_t seed = kTransformSeed;
};
// "norms", "residual", "values", "order", "scale".
std::span<const std::string_view> transform_names();
// kUsage for names that are not known.
Status check_transforms(std::string_view names);

struct TransformChoice {
  std::string name;
  bool used = false;
  int64_t places = 0;
  double loss = 0;  // predicted with it, of what is predicted without any
  std::string obstacle;
};
struct ChosenTransforms {
  Graph graph;
  ActivationStatistics statistics;
  std::vector<TransformChoice> tried;
};
// Names: those, in the order in which they work. "auto": one after the other, each that makes the
// predicted loss of rounding to `encodings` (one per constant) smaller.
Result<ChosenTransforms> choose_transforms(const Graph& graph, std::span<const Encoding> encodings,
                                           const ActivationStatistics& statistics,
                                           const TransformOptions& options);

// The loss of rounding a graph to encodings, the sum over weights of the error of their outputs in
// parts of the outputs, by a sample of rows.
Result<double> predict_loss(const Graph& graph, std::span<const Encoding> encodings,
                            const ActivationStatistics& statistics);

}  // namespace pome
