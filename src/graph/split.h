// Weights cut into parts that may be stored in encodings of their own, where not all of a weight
// matters alike.
//
// - The hidden units of a dense feed-forward network, in three networks whose outputs are added up:
//   the first quarter, the last eighth, and what is between. With what the network is added to,
//   sums are a chain: h + y0, (h + y0) + y1, ..
// - The vocabulary: rows of the embedding are looked up in each part and selected, outputs of the
//   head are put one after the other. The first eighth, the second, the second quarter and the
//   second half: ids are about in the order of how often tokens occur.
//
// What the model computes stays as it is but for the rounding of sums.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "graph/graph.h"

namespace pome {

struct Split {
  Graph graph;
  int64_t networks = 0, tables = 0;  // that were cut
};
// Weights that are stored as integers or in blocks, of few rows or columns, or used by others too,
// stay whole.
Result<Split> split_parts(const Graph& graph);
// "layers.0.mlp.up.weight" -> "layers.0.mlp.up.part1.weight"
std::string part_name(const std::string& name, size_t part);

}  // namespace pome
