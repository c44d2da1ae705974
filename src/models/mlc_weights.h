// Weights of an MLC package as graph constants.
#pragma once

#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "graph/graph.h"
#include "graph/mlc_place.h"

namespace pome {

struct MlcWeight {
  ConstantDataPtr data;              // null with a problem
  std::vector<std::string> tensors;  // of the package, that it reads
  std::string problem;               // "missing: ...", for a list of complaints
};
// The weight of this shape at this place: "<module>.weight" as it is, or "<module>.q_weight" and
// "<module>.q_scale", whose groups become kInt without rounding.
MlcWeight find_mlc_weight(const Checkpoint& checkpoint, const MlcPlace& place, const Shape& shape);

}  // namespace pome
