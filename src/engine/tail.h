// The tail of a plan: see plan_impl.h.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace pome {

bool is_static_shape(const SymShape& shape);
// By value: the node that makes it belongs to the tail.
std::vector<bool> find_tail(const Graph& graph);

}  // namespace pome
