#include "engine/tail.h"

#include <algorithm>
#include <type_traits>

namespace pome {

namespace {

// [B, T, ..] with nothing else that changes: rows can be told apart.
bool is_row_shape(const SymShape& shape) {
  if (shape.size() < 2 || shape[1] != Dim(Symbol::kTokens)) return false;
  if (shape[0] != Dim(Symbol::kBatch) && shape[0] != Dim(1)) return false;
  return std::all_of(shape.begin() + 2, shape.end(), [](const Dim& d) { return d.is_static(); });
}
// Whether row t of the result depends on rows t of the operands only, given that result and
// operands have row shapes or are static.
bool is_row_op(const Graph& graph, const Node& node) {
  const auto rank = static_cast<int32_t>(graph.type(node.result).shape.size());
  const auto behind_rows = [rank](int32_t axis) { return (axis < 0 ? axis + rank : axis) >= 2; };
  const auto of_value = [&](size_t i) { return graph.type(node.operands[i]).shape; };
  return std::visit(
      [&](const auto& op) {
        using T = std::decay_t<decltype(op)>;
        if constexpr (std::is_same_v<T, UnaryOp> || std::is_same_v<T, ReshapeOp> ||
                      std::is_same_v<T, ActivationOp> || std::is_same_v<T, SwigluOp> ||
                      std::is_same_v<T, MoeOp>) {
          return true;
        } else if constexpr (std::is_same_v<T, BinaryOp> || std::is_same_v<T, SelectOp>) {
          // A broadcast of another rank would move the rows to another axis.
          for (size_t i = 0; i < node.operands.size(); ++i) {
            const SymShape shape = of_value(i);
            if (!is_static_shape(shape) && static_cast<int32_t>(shape.size()) != rank) return false;
          }
          return true;
        } else if constexpr (std::is_same_v<T, LinearOp> || std::is_same_v<T, RmsNormOp> ||
                             std::is_same_v<T, LayerNormOp>) {
          return rank >= 3 && is_static_shape(of_value(1));
        } else if constexpr (std::is_same_v<T, SoftmaxOp> || std::is_same_v<T, TopKMaskOp>) {
          return rank >= 3;
        } else if constexpr (std::is_same_v<T, ReduceOp> || std::is_same_v<T, SliceOp> ||
                             std::is_same_v<T, ConcatOp>) {
          return behind_rows(op.axis);
        } else if constexpr (std::is_same_v<T, TransposeOp>) {
          return op.permutation[0] == 0 && op.permutation[1] == 1;
        } else if constexpr (std::is_same_v<T, MatMulOp>) {
          return rank == 3 && of_value(0).size() == 3 && of_value(1).size() == 2 &&
                 is_static_shape(of_value(1));
        } else {
          return false;
        }
      },
      node.op);
}

}  // namespace

bool is_static_shape(const SymShape& shape) {
  return std::all_of(shape.begin(), shape.end(), [](const Dim& d) { return d.is_static(); });
}

std::vector<bool> find_tail(const Graph& graph) {
  std::vector<bool> tail(graph.values.size(), false), blocked(graph.values.size(), false);
  for (const CachePair& cache : graph.caches) blocked[static_cast<size_t>(cache.output)] = true;
  std::vector<bool> used(graph.values.size(), false);
  used[static_cast<size_t>(graph.output)] = true;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    const auto result = static_cast<size_t>(node.result);
    bool in_tail = used[result] && !blocked[result] &&
                   is_row_shape(graph.type(node.result).shape) && is_row_op(graph, node);
    for (const ValueId id : node.operands) {
      const SymShape& shape = graph.type(id).shape;
      in_tail = in_tail && (is_row_shape(shape) || is_static_shape(shape));
    }
    tail[result] = in_tail;
    for (const ValueId id : node.operands) {
      used[static_cast<size_t>(id)] = true;
      if (!in_tail) blocked[static_cast<size_t>(id)] = true;
    }
  }
  return tail;
}

}  // namespace pome
