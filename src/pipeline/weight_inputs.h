// Which values the weights of a graph are multiplied with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace pome {

// A value that several weights read. The experts of a mixture read one value on the way in, and
// each its own on the way out.
struct WeightInput {
  std::string first;  // the weight that stands for all: what an observer hears of
  int64_t columns = 0, experts = 1;
  std::vector<std::string> weights;  // names of constants, `first` among them
};
// Of linear products and of the experts of mixtures, in the order of the graph.
std::vector<WeightInput> weight_inputs(const Graph& graph);

}  // namespace pome
