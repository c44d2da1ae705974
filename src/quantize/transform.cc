#include "quantize/transform.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "quantize/transform_plan.h"

namespace pome {

namespace {

constexpr float kLeastGain = 1e-4f;  // in parts of the largest: dividing by less loses digits

bool is_norm(const Op& op) {
  return std::holds_alternative<RmsNormOp>(op) || std::holds_alternative<LayerNormOp>(op);
}

// The weights that read a value; false where something else does.
bool find_readers(const GraphUses& uses, ValueId value, std::vector<int32_t>* weights) {
  if (uses.leaves(value)) return false;
  for (const Use& use : uses.uses(value)) {
    if (use.operand != 0) return false;
    if (std::holds_alternative<LinearOp>(use.node->op)) {
      if (!uses.is_own_weight(use.node->operands[1])) return false;
      weights->push_back(uses.constant(use.node->operands[1]));
    } else if (const auto* moe = std::get_if<MoeOp>(&use.node->op)) {
      for (size_t i = 2; i < moe->down(); ++i) {
        if (!uses.is_own_weight(use.node->operands[i])) return false;
        weights->push_back(uses.constant(use.node->operands[i]));
      }
    } else {
      return false;
    }
  }
  return !weights->empty();
}

Status fold(const GraphUses& uses, const Node& norm, TransformPlan* plan) {
  const std::string& name = uses.graph().name(norm.result);
  std::vector<int32_t> readers;
  const bool own = uses.is_own_weight(norm.operands[1]) &&
                   (norm.operands.size() < 3 || uses.is_own_weight(norm.operands[2]));
  if (!own || !find_readers(uses, norm.result, &readers)) {
    plan->obstacle(name + " is not read by plain weights of its own alone");
    return {};
  }
  POME_ASSIGN_OR_RETURN(const std::vector<float> gains, read_vector(uses.data(norm.operands[1])));
  float largest = 0, least = INFINITY;
  for (const float gain : gains) {
    largest = std::max(largest, std::fabs(gain));
    least = std::min(least, std::fabs(gain));
  }
  if (!std::isfinite(largest) || !(least > kLeastGain * largest)) {
    plan->obstacle("a gain of " + name + " is nearly 0");
    return {};
  }
  auto map = std::make_shared<BasisMap>();
  map->size = static_cast<int64_t>(gains.size());
  map->scale = gains;
  for (const int32_t reader : readers) plan->columns(reader, map);
  if (norm.operands.size() == 3) {
    auto back = std::make_shared<BasisMap>(*map);
    for (float& gain : back->scale) gain = 1 / gain;
    plan->vector(uses.constant(norm.operands[2]), back);
  }
  plan->replace(uses.constant(norm.operands[1]), std::vector<float>(gains.size(), 1.0f));
  plan->changed();
  return {};
}

// [B, T, heads, dim] <-> [B, heads, T, dim]
bool swaps_heads(const Node& node) {
  const auto* const turn = std::get_if<TransposeOp>(&node.op);
  return turn && turn->permutation == std::vector<int32_t>{0, 2, 1, 3};
}

// What stands around one attention: the products before its values and behind it.
struct ValuePath {
  const Node *values = nullptr, *output = nullptr;
  int64_t kv_heads = 0, heads = 0, dim = 0;
};

bool is_own_product(const GraphUses& uses, const Node& node) {
  return std::holds_alternative<LinearOp>(node.op) && uses.is_own_weight(node.operands[1]) &&
         (node.operands.size() < 3 || uses.is_own_weight(node.operands[2]));
}

bool find_value_path(const GraphUses& uses, const Node& attention, ValuePath* path) {
  const Node& write = uses.producer(attention.operands[2]);
  if (!std::holds_alternative<KvWriteOp>(write.op) || uses.uses(write.result).size() != 1 ||
      uses.uses(write.operands[0]).size() != 1)
    return false;
  const Node& turned = uses.producer(write.operands[1]);
  if (!swaps_heads(turned) || uses.only_user(turned.result) != &write) return false;
  const Node& split = uses.producer(turned.operands[0]);
  if (!std::holds_alternative<ReshapeOp>(split.op) || uses.only_user(split.result) != &turned)
    return false;
  const Node& values = uses.producer(split.operands[0]);
  if (!is_own_product(uses, values) || uses.only_user(values.result) != &split) return false;
  const Node* const back = uses.only_user(attention.result);
  if (!back || !swaps_heads(*back)) return false;
  const Node* const merged = uses.only_user(back->result);
  if (!merged || !std::holds_alternative<ReshapeOp>(merged->op)) return false;
  const Node* const output = uses.only_user(merged->result);
  if (!output || !is_own_product(uses, *output) || output->operands[0] != merged->result)
    return false;
  const SymShape& in = uses.graph().type(split.result).shape;
  const SymShape& out = uses.graph().type(attention.result).shape;
  if (in.size() != 4 || out.size() != 4 || in[3] != out[3]) return false;
  *path = {&values, output, in[2].size, out[1].size, in[3].size};
  return path->kv_heads > 0 && path->heads % path->kv_heads == 0 &&
         uses.width(values.result) == path->kv_heads * path->dim &&
         uses.width(merged->result) == path->heads * path->dim;
}

}  // namespace

Result<Transformed> fold_norm_gains(const Graph& graph, const ActivationStatistics& statistics) {
  TransformPlan plan(graph, statistics);
  const GraphUses uses(graph);
  for (const Node& node : graph.nodes)
    if (is_norm(node.op)) POME_RETURN_IF_ERROR(fold(uses, node, &plan));
  return std::move(plan).finish();
}

Result<Transformed> rotate_values(const Graph& graph, const ActivationStatistics& statistics,
                                  uint64_t seed) {
  TransformPlan plan(graph, statistics);
  const GraphUses uses(graph);
  for (const Node& node : graph.nodes) {
    if (!std::holds_alternative<AttentionOp>(node.op)) continue;
    ValuePath path;
    if (!find_value_path(uses, node, &path)) {
      plan.obstacle(graph.name(node.result) + " does not take values as one product makes them");
      continue;
    }
    auto before = std::make_shared<BasisMap>(), behind = std::make_shared<BasisMap>();
    before->size = path.kv_heads * path.dim;
    behind->size = path.heads * path.dim;
    for (int64_t head = 0; head < path.kv_heads; ++head) {
      const RotationPtr rotation = Rotation::random(path.dim, seed++);
      before->blocks.push_back(rotation);
      behind->blocks.insert(behind->blocks.end(), static_cast<size_t>(path.heads / path.kv_heads),
                            rotation);
    }
    plan.rows(uses.constant(path.values->operands[1]), before);
    if (path.values->operands.size() == 3)
      plan.vector(uses.constant(path.values->operands[2]), before);
    plan.columns(uses.constant(path.output->operands[1]), behind);
    plan.changed();
  }
  return std::move(plan).finish();
}

}  // namespace pome
