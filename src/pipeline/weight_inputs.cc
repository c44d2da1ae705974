#include "pipeline/weight_inputs.h"

#include <map>
#include <utility>

namespace pome {

std::vector<WeightInput> weight_inputs(const Graph& graph) {
  std::vector<const Node*> producer(graph.values.size(), nullptr);
  for (const Node& node : graph.nodes) producer[static_cast<size_t>(node.result)] = &node;
  const auto constant = [&](ValueId id) -> const Constant* {
    const Node* const node = producer[static_cast<size_t>(id)];
    const auto* op = node ? std::get_if<ConstantOp>(&node->op) : nullptr;
    return op ? &graph.constants[static_cast<size_t>(op->constant)] : nullptr;
  };
  std::vector<WeightInput> out;
  enum class Reader { kProduct, kExpertsIn, kExpertsOut };
  std::map<std::pair<ValueId, Reader>, size_t> of_value;
  const auto add = [&](ValueId value, Reader reader, ValueId weight) {
    const Constant* const found = constant(weight);
    if (!found) return;
    const auto [at, made] = of_value.try_emplace({value, reader}, out.size());
    const Shape& shape = found->data->shape();
    if (made)
      out.push_back({found->name, found->data->columns(), shape.size() == 3 ? shape[0] : 1, {}});
    out[at->second].weights.push_back(found->name);
  };
  for (const Node& node : graph.nodes) {
    if (std::holds_alternative<LinearOp>(node.op))
      add(node.operands[0], Reader::kProduct, node.operands[1]);
    if (const auto* matmul = std::get_if<MatMulOp>(&node.op);
        matmul && matmul->transpose_y && graph.type(node.operands[1]).shape.size() == 2)
      add(node.operands[0], Reader::kProduct, node.operands[1]);
    if (const auto* moe = std::get_if<MoeOp>(&node.op)) {
      for (size_t i = 2; i < moe->down(); ++i)
        add(node.result, Reader::kExpertsIn, node.operands[i]);
      add(node.result, Reader::kExpertsOut, node.operands[moe->down()]);
    }
  }
  return out;
}

}  // namespace pome
