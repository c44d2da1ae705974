#include "graph/hidden_units.h"

#include <set>

namespace pome {

namespace {

// Walks back from the units through what works on each alone to the products that make them.
class UnitFinder {
 public:
  explicit UnitFinder(const GraphUses& uses) : uses_(uses) {}

  bool find(const Node& down, HiddenUnits* out) {
    if (!std::holds_alternative<LinearOp>(down.op) || !uses_.is_own_weight(down.operands[1]))
      return false;
    units_ = out;
    units_->units = uses_.width(down.operands[0]);
    units_->down = uses_.constant(down.operands[1]);
    inside_ = {&down};
    std::vector<ValueId> open = {down.operands[0]};
    while (!open.empty()) {
      const ValueId value = open.back();
      open.pop_back();
      const Node& node = uses_.producer(value);
      if (!inside_.insert(&node).second) continue;
      if (!add(node, &open)) return false;
    }
    if (inside_.size() <= units_->makers.size() + 1 || !is_closed(down)) return false;
    for (const Node& node : uses_.graph().nodes)
      if (&node != &down && inside_.count(&node) > 0) units_->inside.push_back(&node);
    return true;
  }

 private:
  bool add(const Node& node, std::vector<ValueId>* open) {
    if (std::holds_alternative<LinearOp>(node.op)) {
      if (!uses_.is_own_weight(node.operands[1])) return false;
      units_->makers.push_back(uses_.constant(node.operands[1]));
      if (node.operands.size() < 3) return true;
      if (!uses_.is_own_weight(node.operands[2])) return false;
      units_->biases.push_back(uses_.constant(node.operands[2]));
      return true;
    }
    const bool alone =
        std::holds_alternative<UnaryOp>(node.op) || std::holds_alternative<BinaryOp>(node.op) ||
        std::holds_alternative<ActivationOp>(node.op) || std::holds_alternative<SwigluOp>(node.op);
    if (!alone) return false;
    for (const ValueId operand : node.operands) {
      if (uses_.graph().type(operand).shape.empty()) continue;  // a number for all units
      if (uses_.width(operand) != units_->units) return false;
      open->push_back(operand);
    }
    return true;
  }
  // Nothing else sees the units.
  bool is_closed(const Node& down) const {
    for (const Node* node : inside_) {
      if (node == &down) continue;
      if (uses_.leaves(node->result)) return false;
      for (const Use& use : uses_.uses(node->result))
        if (inside_.count(use.node) == 0) return false;
    }
    return true;
  }

  const GraphUses& uses_;
  HiddenUnits* units_ = nullptr;
  std::set<const Node*> inside_;
};

bool find_experts(const GraphUses& uses, const Node& node, HiddenUnits* out) {
  const auto* const moe = std::get_if<MoeOp>(&node.op);
  if (!moe) return false;
  for (size_t i = 2; i < node.operands.size(); ++i)
    if (!uses.is_own_weight(node.operands[i])) return false;
  out->down = uses.constant(node.operands[moe->down()]);
  const Shape& shape = uses.data(node.operands[moe->down()]).shape();
  if (shape.size() != 3) return false;
  out->sets = shape[0];
  out->units = shape[2];
  for (size_t i = 2; i < moe->down(); ++i) out->makers.push_back(uses.constant(node.operands[i]));
  // The last of the biases is that of the outputs.
  for (size_t i = moe->down() + 1; i + 1 < node.operands.size(); ++i)
    out->biases.push_back(uses.constant(node.operands[i]));
  return true;
}

}  // namespace

Status for_each_network(const GraphUses& uses,
                        const std::function<Status(const HiddenUnits&, const Node&)>& use) {
  UnitFinder finder(uses);
  for (const Node& node : uses.graph().nodes) {
    HiddenUnits found;
    if (!finder.find(node, &found)) {
      found = {};
      if (!find_experts(uses, node, &found)) continue;
    }
    if (found.units >= 2) POME_RETURN_IF_ERROR(use(found, node));
  }
  return {};
}

}  // namespace pome
