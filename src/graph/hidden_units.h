// Hidden units of feed-forward networks: what stands between the matrix that reads them and those
// that make them works on each unit alone, so units may change places, be scaled, and be told
// apart.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "graph/graph_uses.h"

namespace pome {

// A network: `makers` [sets * units, ..] with their biases, `down` [sets * .., units].
struct HiddenUnits {
  int64_t sets = 1, units = 0;
  std::vector<int32_t> makers, biases;
  int32_t down = -1;
  // What stands before the matrix that reads the units, in order; nothing of experts.
  std::vector<const Node*> inside = {};
};
// Calls use(network, node that reads its units), of dense networks and of experts.
Status for_each_network(const GraphUses& uses,
                        const std::function<Status(const HiddenUnits&, const Node&)>& use);

}  // namespace pome
