// Private to the transforms: who uses what in a graph, and changes to constants that are collected
// before they are made.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "quantize/transform.h"
#include "quantize/transform_maps.h"

namespace pome {

struct Use {
  const Node* node = nullptr;
  size_t operand = 0;
};

class GraphUses {
 public:
  explicit GraphUses(const Graph& graph);
  const Graph& graph() const { return graph_; }
  const Node& producer(ValueId id) const { return *producers_[static_cast<size_t>(id)]; }
  const std::vector<Use>& uses(ValueId id) const { return uses_[static_cast<size_t>(id)]; }
  // Whether the value leaves the graph.
  bool leaves(ValueId id) const { return leaves_[static_cast<size_t>(id)]; }
  // The one node that uses a value which does not leave the graph; null where there are several.
  const Node* only_user(ValueId id) const;
  // The constant that a value is; -1 for other values.
  int32_t constant(ValueId id) const;
  const ConstantData& data(ValueId id) const;
  // Whether it is a constant of plain numbers that nothing but one node uses.
  bool is_own_weight(ValueId id) const;
  // Of a constant.
  size_t use_count(int32_t constant) const {
    return constant_uses_[static_cast<size_t>(constant)].size();
  }
  // The last dimension, 0 where it is not a number.
  int64_t width(ValueId id) const;

 private:
  const Graph& graph_;
  std::vector<const Node*> producers_;
  std::vector<std::vector<Use>> uses_;
  std::vector<bool> leaves_;
  std::vector<std::vector<Use>> constant_uses_;
};

bool is_plain(const ConstantData& data);
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
