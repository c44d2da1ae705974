// Who uses what in a graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"

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
  const std::vector<Use>& uses_of_constant(int32_t constant) const {
    return constant_uses_[static_cast<size_t>(constant)];
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

// Of f32, f16 or bf16 numbers, one by one.
bool is_plain(const ConstantData& data);

}  // namespace pome
