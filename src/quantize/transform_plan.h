// Private to the transforms: changes to constants that are collected before they are made.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph_uses.h"
#include "quantize/transform.h"
#include "quantize/transform_maps.h"

namespace pome {

Result<std::vector<float>> read_vector(const ConstantData& data);

// What becomes of the constants of a graph whose nodes stay.
class TransformPlan {
 public:
  TransformPlan(const Graph& graph, const ActivationStatistics& statistics)
      : out_{graph, statistics, 0, {}}, cache_(make_piece_cache()) {}

  void columns(int32_t constant, const BasisMapPtr& map);  // and what meets them
  void vector(int32_t constant, const BasisMapPtr& map);   // of outputs: biases
  void rows(int32_t constant, const BasisMapPtr& map);
  void replace(int32_t constant, std::vector<float> values);
  void changed() { ++out_.places; }
  void obstacle(std::string why) { out_.obstacle = std::move(why); }
  Graph& graph() { return out_.graph; }
  ActivationStatistics& statistics() { return out_.statistics; }
  Transformed finish() && { return std::move(out_); }

 private:
  Constant& at(int32_t constant) { return out_.graph.constants[static_cast<size_t>(constant)]; }

  Transformed out_;
  std::shared_ptr<PieceCache> cache_;
  // Weights that read one value share what is known of it, also after it was mapped.
  std::map<std::pair<const Moments*, const BasisMap*>, std::vector<MomentsPtr>> mapped_;
  std::vector<MomentsPtr> kept_;  // keeps the keys of that map alive
};

}  // namespace pome
