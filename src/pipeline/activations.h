// Int8 activations: which values of a quantised graph get a grid of eight bits.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "graph/graph.h"
#include "quantize/activation_range.h"

namespace pome {

struct ActivationValue {
  std::vector<std::string> weights;  // that read it
  ActivationChoice choice;
};
struct Int8Activations {
  std::map<std::string, ActivationGrid> grids;  // by name of the weight that reads the value
  std::vector<ActivationValue> values;          // in the order of the graph
};
// For every value that int8 weights of `quantized` alone read, from a text run through `original`.
// kUsage where there is no such value.
Result<Int8Activations> int8_activations(const Graph& original, const Graph& quantized,
                                         std::span<const int32_t> ids, RangeMethod method,
                                         const WorkContext& work);

}  // namespace pome
