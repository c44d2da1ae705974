// Weights cut into parts that may be stored in encodings of their own, where not all of a weight
// matters alike.
//
// - The hidden units of a dense feed-forward network, in the order of their size (order_units), in
//   three networks whose outputs are added up: the smallest quarter, the largest eighth, and what
//   is between. With what the network is added to, sums are a chain: h + y0, (h + y0) + y1, ..
// - The vocabulary, in the order of the ids, which is about that of how often tokens occur: rows of
//   the embedding are looked up in each part and selected, outputs of the head are put one after
//   the other. The first eighth, the second, the second quarter and the second half.
//
// What the model computes stays as it is but for the rounding of sums; its source hash too.
//
// Thread safety: a pure function.
#pragma once

#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/graph.h"

namespace pome {

struct Split {
  Graph graph;
  int64_t networks = 0, tables = 0;  // that were cut
};
// Reads every constant, for the source hash. Weights that are stored as integers or in blocks, of
// few rows or columns, or used by others too, stay whole.
Result<Split> split_weights(const Graph& graph, ThreadPool* pool);

}  // namespace pome
