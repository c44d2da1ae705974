#include "engine/fuse.h"

#include <algorithm>

#include "engine/row_norm.h"

namespace pome {

namespace {

class Fuser {
 public:
  Fuser(const Graph& graph, const std::vector<bool>& tail,
        const std::function<bool(const Node&)>& packed)
      : graph_(graph),
        tail_(tail),
        producer_(graph.values.size(), -1),
        packed_(graph.nodes.size()),
        users_(graph.values.size()),
        outside_(graph.values.size(), false),
        out_(graph.values.size()) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      producer_[at(node.result)] = static_cast<int64_t>(i);
      packed_[i] = packed(node);
      for (const ValueId id : node.operands) users_[at(id)].push_back(i);
    }
    outside_[at(graph.output)] = true;
    for (const CachePair& cache : graph.caches) outside_[at(cache.output)] = true;
  }

  Fusions run() {
    for (const Node& node : graph_.nodes) {
      if (RowNorm::is_norm(node) && only_products_read(node.result))
        out_.norm[at(node.result)] = out_.taken[at(node.result)] = true;
      take_activation(node);
      take_sum(node);
      take_rope(node);
    }
    return std::move(out_);
  }

 private:
  static size_t at(ValueId id) { return static_cast<size_t>(id); }

  // All readers are packed products of the same section that read it as what is multiplied.
  bool only_products_read(ValueId id) const {
    if (outside_[at(id)] || users_[at(id)].empty()) return false;
    return std::all_of(users_[at(id)].begin(), users_[at(id)].end(), [&](size_t i) {
      const Node& user = graph_.nodes[i];
      return packed_[i] && user.operands[0] == id && user.operands[1] != id &&
             (user.operands.size() < 3 || user.operands[2] != id) &&
             tail_[at(user.result)] == tail_[at(id)];
    });
  }
  // A packed product that only the node which makes `reader` reads.
  bool is_private_product(ValueId id, ValueId reader) const {
    const int64_t made = producer_[at(id)];
    return made >= 0 && packed_[static_cast<size_t>(made)] && !outside_[at(id)] &&
           users_[at(id)].size() == 1 && tail_[at(id)] == tail_[at(reader)];
  }
  const Node& producer(ValueId id) const {
    return graph_.nodes[static_cast<size_t>(producer_[at(id)])];
  }

  void take_activation(const Node& node) {
    const bool gated = std::holds_alternative<SwigluOp>(node.op);
    if (!gated && !std::holds_alternative<ActivationOp>(node.op)) return;
    const ValueId gate = node.operands[0], up = gated ? node.operands[1] : kNoValue;
    if (!is_private_product(gate, node.result)) return;
    if (gated) {
      if (!is_private_product(up, node.result) || up == gate) return;
      if (producer(up).operands[0] != producer(gate).operands[0]) return;
      out_.up_of[at(gate)] = up;
      out_.taken[at(up)] = true;
    }
    out_.activation[at(gate)] = node.result;
    out_.taken[at(node.result)] = true;
    out_.quantised[at(node.result)] = only_products_read(node.result);
  }

  // Products with one value are one step, at the place of the first: by then the residual must be
  // there.
  int64_t place_of(const Node& product) const {
    int64_t first = producer_[at(product.result)];
    for (const size_t i : users_[at(product.operands[0])])
      if (packed_[i]) first = std::min(first, static_cast<int64_t>(i));
    return first;
  }
  void take_sum(const Node& node) {
    const auto* op = std::get_if<BinaryOp>(&node.op);
    if (!op || op->kind != BinaryKind::kAdd) return;
    for (const size_t side : {size_t{0}, size_t{1}}) {
      const ValueId product = node.operands[side], residual = node.operands[1 - side];
      if (product == residual || !is_private_product(product, node.result)) continue;
      const ValueType& type = graph_.type(node.result);
      if (!(graph_.type(product) == type) || !(graph_.type(residual) == type)) continue;
      if (producer_[at(residual)] < 0 || producer_[at(residual)] >= place_of(producer(product)))
        continue;
      out_.sum[at(product)] = node.result;
      out_.residual_of[at(product)] = residual;
      out_.taken[at(node.result)] = true;
      return;
    }
  }

  void take_rope(const Node& node) {
    if (!std::holds_alternative<KvWriteOp>(node.op)) return;
    const ValueId rows = node.operands[1];
    if (producer_[at(rows)] >= 0 && std::holds_alternative<RopeOp>(producer(rows).op) &&
        users_[at(rows)].size() == 1 && !outside_[at(rows)])
      out_.taken[at(rows)] = true;
  }

  const Graph& graph_;
  const std::vector<bool>& tail_;
  std::vector<int64_t> producer_;           // by value: index of the node
  std::vector<bool> packed_;                // by node
  std::vector<std::vector<size_t>> users_;  // by value: indices of nodes, one per operand
  std::vector<bool> outside_;               // read by the caller
  Fusions out_;
};

}  // namespace

Fusions::Fusions(size_t values)
    : norm(values),
      quantised(values),
      activation(values, kNoValue),
      up_of(values, kNoValue),
      taken(values),
      sum(values, kNoValue),
      residual_of(values, kNoValue) {}

Fusions find_fusions(const Graph& graph, const std::vector<bool>& tail,
                     const std::function<bool(const Node&)>& packed) {
  return Fuser(graph, tail, packed).run();
}

}  // namespace pome
