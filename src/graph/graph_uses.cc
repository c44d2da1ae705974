#include "graph/graph_uses.h"

namespace pome {

GraphUses::GraphUses(const Graph& graph)
    : graph_(graph),
      producers_(graph.values.size(), nullptr),
      uses_(graph.values.size()),
      leaves_(graph.values.size(), false),
      constant_uses_(graph.constants.size()) {
  for (const Node& node : graph.nodes) {
    producers_[static_cast<size_t>(node.result)] = &node;
    for (size_t i = 0; i < node.operands.size(); ++i) {
      const ValueId id = node.operands[i];
      uses_[static_cast<size_t>(id)].push_back({&node, i});
      if (const int32_t found = constant(id); found >= 0)
        constant_uses_[static_cast<size_t>(found)].push_back({&node, i});
    }
  }
  leaves_[static_cast<size_t>(graph.output)] = true;
  for (const CachePair& cache : graph.caches) leaves_[static_cast<size_t>(cache.output)] = true;
}

const Node* GraphUses::only_user(ValueId id) const {
  const std::vector<Use>& all = uses(id);
  return all.size() == 1 && !leaves(id) ? all[0].node : nullptr;
}

int32_t GraphUses::constant(ValueId id) const {
  const Node* const node = producers_[static_cast<size_t>(id)];
  const auto* const op = node ? std::get_if<ConstantOp>(&node->op) : nullptr;
  return op ? op->constant : -1;
}

const ConstantData& GraphUses::data(ValueId id) const {
  return *graph_.constants[static_cast<size_t>(constant(id))].data;
}

bool GraphUses::is_own_weight(ValueId id) const {
  const int32_t found = constant(id);
  return found >= 0 && constant_uses_[static_cast<size_t>(found)].size() == 1 && is_plain(data(id));
}

int64_t GraphUses::width(ValueId id) const {
  const SymShape& shape = graph_.type(id).shape;
  return shape.empty() || !shape.back().is_static() ? 0 : shape.back().size;
}

bool is_plain(const ConstantData& data) {
  const EncodingKind kind = data.encoding().kind;
  return kind == EncodingKind::kF32 || kind == EncodingKind::kF16 || kind == EncodingKind::kBF16;
}

}  // namespace pome
