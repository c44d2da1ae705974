// What every exporter reports.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace pome {

// Where a part of a constant lies in a weight file: codes under the constant's own name, scales
// and tables under ".scale" and ".table" behind it.
struct PlacedTensor {
  std::string name;
  uint64_t offset = 0, size = 0;  // of the data
};
struct ExportReport {
  GraphHashes hashes;
  uint64_t weight_bytes = 0, bytes = 0;
  int64_t parameters = 0;
  double bits_per_weight = 0;         // all stored bits over all parameters
  std::vector<PlacedTensor> tensors;  // of the weight file, in graph order
};

// How far the stored values of one tensor are from those of the source.
struct TensorError {
  std::string name;      // of the constant
  std::string encoding;  // "q4_k"
  uint64_t bytes = 0;
  double relative_error = 0;  // sqrt(sum (w - stored)^2 / sum w^2); 0 where nothing was rounded
};

// Everything about the model that is no weight, as JSON, so that the graph can be built again from
// the artefact alone.
std::string model_info_json(const ModelInfo& info);

}  // namespace pome
