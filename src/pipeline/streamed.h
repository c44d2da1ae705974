// Rounds the weights of a graph for the activations of a text, layer by layer.
//
// Each layer runs over the whole text, the second moments of what meets its weights are gathered,
// they are rounded with error feedback (quantize/feedback.h) and kept in a work folder
// (part_store.h). One layer is in memory at a time, and interrupted work goes on behind the last
// one that was finished.
//
// With `behind_quantised` two streams go through the model: what the original layers give, and what
// the quantised ones do. The values within a layer come one after the other, each behind the
// rounded weights before it, and weights aim at three quarters of what makes the second stream give
// what the first one does, those that write into the hidden state at half of what it lacks besides
// (quantize/retarget.h). Experts are rounded for the second stream as they are.
// Otherwise there is one stream, the original one.
//
// A head that shares its weight with the embedding is rounded for what it reads; behind quantised
// layers that takes a pass over the text before.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "graph/graph.h"
#include "quantize/quantize.h"

namespace pome {

struct StreamOptions {
  int64_t window = 512;  // tokens that see each other
  bool behind_quantised = false;
  // Of the second moments that are gathered in one pass. Of a value whose own are larger only the
  // diagonal is known: grids are fitted with that, and there is no feedback.
  uint64_t most_bytes = uint64_t{1} << 30;
  RoundingOptions rounding;
  // Of weights of so many columns: rounds take the square of their number, so very wide ones get
  // one round.
  RoundingOptions rounding_for(int64_t columns) const {
    constexpr int64_t kWide = 4096;
    return {columns > kWide ? std::min(rounding.rounds, 1) : rounding.rounds};
  }
  bool scaled = false;      // the quantised weights are multiplied by their gguf_place.factor
  std::string folder, key;  // of the work folder: what it is called, and what the work is about
  // Called when a part is finished: what was mapped for it is not needed again soon.
  std::function<void()> release = {};
};
struct StreamResult {
  int64_t tokens = 0, parts = 0;
  int64_t resumed = 0;   // parts that earlier work had finished
  int64_t diagonal = 0;  // weights without feedback: their second moments are too large
  double seconds = 0;
};

// What it will take, for telling before the work begins.
struct StreamEstimate {
  double multiply_adds = 0;
  uint64_t memory_bytes = 0;  // beyond what is mapped from files
  int64_t parts = 0;
};
StreamEstimate estimate_stream(const Graph& graph, int64_t tokens, const StreamOptions& options);

// `quantised`: `graph` with the encodings that were chosen; its data is replaced by what is stored
// in the work folder. Both have the same values. Deterministic for every number of threads, and
// however often it was interrupted. kUsage for less than two tokens; kBadInput where activations
// are not finite; what compile() says.
Result<StreamResult> round_streamed(const Graph& graph, Graph* quantised,
                                    std::span<const int32_t> ids, const StreamOptions& options,
                                    const WorkContext& work);

}  // namespace pome
