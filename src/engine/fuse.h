// Which nodes of a graph are no steps of their own: a step of packed products, or the write to a
// cache, takes them in.
//
// Composites are recognised by what they are, never by the family they come from:
//
//   norm -> products          the norm is taken while the activations are quantised
//   product(s) -> activation  activation(gate) [* up] on the rows of an item of work
//   activation -> products    quantised at once, never written as floats for others
//   product -> add            the residual is added on the rows of an item of work
//   rope -> kv_write          rows are turned on their way into the cache
//
// A node is taken in only where nobody else reads what it makes. Results are the same bits as
// without.
#pragma once

#include <functional>
#include <vector>

#include "graph/graph.h"

namespace pome {

struct Fusions {
  explicit Fusions(size_t values);  // none
  // All by value of the graph.
  std::vector<bool> norm;            // a norm that the products which read it take themselves
  std::vector<bool> quantised;       // an activation that is read as quantised only
  std::vector<ValueId> activation;   // product -> the activation that takes it as (gate) operand
  std::vector<ValueId> up_of;        // gate product -> the product it is multiplied by
  std::vector<bool> taken;           // results of nodes that are no steps of their own
  std::vector<ValueId> sum;          // product -> the sum with a residual
  std::vector<ValueId> residual_of;  // product -> that residual
};

// `packed` tells the products with packed weights, `tail` the values of the plan's tail.
Fusions find_fusions(const Graph& graph, const std::vector<bool>& tail,
                     const std::function<bool(const Node&)>& packed);

}  // namespace pome
