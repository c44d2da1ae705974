// Passes: each is a pure Graph -> Graph.
#pragma once

#include <span>
#include <vector>

#include "graph/graph.h"

namespace pome {

// Replaces every composite by primitives. This *defines* the composites: kernels and lowerings are
// tested against it.
Graph decompose(const Graph& graph);
// Drops nodes and constants that the output and the caches do not need.
Graph remove_dead(const Graph& graph);
// What computes `output` from `start`, or from the token ids where that is kNoValue, with the
// caches that lie between: start becomes hidden_in. kBadInput where more of what stands before is
// needed.
Result<Graph> part_of(const Graph& graph, ValueId start, ValueId output);
// Parts [0, cuts[0]), [cuts[0], cuts[1]) ... of the layers; each later part takes the hidden state
// of the one before. kUsage when the cuts are not increasing layer numbers inside the model.
Result<std::vector<Graph>> cut_layers(const Graph& graph, std::span<const int32_t> cuts);

}  // namespace pome
