// The basis of the residual stream: found from the embedding on, through all that adds to it and
// all that reads it.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "graph/passes.h"
#include "quantize/transform.h"
#include "quantize/transform_plan.h"

namespace pome {

namespace {

class Stream {
 public:
  explicit Stream(const GraphUses& uses, bool may_insert) : uses_(uses), may_insert_(may_insert) {}

  // Fills what is public below. False, with `obstacle`, where the basis cannot change.
  Result<bool> find() {
    for (const Node& node : uses_.graph().nodes)
      if (std::holds_alternative<EmbeddingOp>(node.op)) {
        if (width_ == 0) width_ = uses_.width(node.result);
        mark(node.result);
      }
    if (open_.empty()) return fail("there is no embedding");
    while (!open_.empty()) {
      const ValueId value = open_.back();
      open_.pop_back();
      const std::string& name = uses_.graph().name(value);
      if (uses_.width(value) != width_ || uses_.leaves(value))
        return fail(name + " is not a hidden state");
      POME_ASSIGN_OR_RETURN(const bool made, look_at_producer(uses_.producer(value)));
      if (!made) return fail(name + " is made by what has a basis of its own");
      for (const Use& use : uses_.uses(value)) {
        POME_ASSIGN_OR_RETURN(const bool read, look_at_user(*use.node, use.operand));
        if (!read)
          return fail(name + " is read by " + uses_.graph().name(use.node->result) +
                      ", which has a basis of its own");
      }
    }
    for (const auto& [constant, count] : columns)
      if (count != uses_.uses_of_constant(constant).size())
        return fail(uses_.graph().constants[static_cast<size_t>(constant)].name +
                    " has other uses too");
    return true;
  }

  std::map<int32_t, size_t> columns;  // constants whose columns are in the basis, and their uses
  std::set<int32_t> rows, vectors;
  const Node* tied_norm = nullptr;  // its gain stands before a head that is the embedding
  bool keeps_ones = false;
  std::string obstacle;
  int64_t width() const { return width_; }

 private:
  bool fail(std::string why) {
    obstacle = std::move(why);
    return false;
  }
  void mark(ValueId value) {
    if (seen_.insert(value).second) open_.push_back(value);
  }
  bool add_columns(ValueId id) {
    const int32_t found = uses_.constant(id);
    if (found < 0 || !is_plain(uses_.data(id)) || uses_.data(id).columns() != width_) return false;
    ++columns[found];
    return true;
  }
  bool add_outputs(const Node& node, size_t weight, size_t bias) {
    if (!uses_.is_own_weight(node.operands[weight])) return false;
    rows.insert(uses_.constant(node.operands[weight]));
    if (node.operands.size() <= bias) return true;
    if (!uses_.is_own_weight(node.operands[bias])) return false;
    vectors.insert(uses_.constant(node.operands[bias]));
    return true;
  }
  // Numbers that all channels are multiplied with.
  bool is_same_for_all(ValueId id) const {
    return uses_.graph().type(id).shape.empty() || uses_.width(id) == 1;
  }

  Result<bool> look_at_producer(const Node& node) {
    const std::vector<ValueId>& from = node.operands;
    if (std::holds_alternative<EmbeddingOp>(node.op) || std::holds_alternative<GatherOp>(node.op))
      return add_columns(from[0]);
    if (std::holds_alternative<LinearOp>(node.op)) return add_outputs(node, 1, 2);
    if (const auto* moe = std::get_if<MoeOp>(&node.op))
      return add_outputs(node, moe->down(), moe->operands_with_biases() - 1);
    // One that reads the stream was looked at; one behind a branch has its gains in the branch.
    if (is_norm(node)) return seen_.count(from[0]) != 0;
    return look_at_binary(node);
  }

  bool look_at_binary(const Node& node) {
    const auto* const binary = std::get_if<BinaryOp>(&node.op);
    if (!binary) return false;
    const bool sum = binary->kind == BinaryKind::kAdd || binary->kind == BinaryKind::kSub;
    if (!sum && binary->kind != BinaryKind::kMul && binary->kind != BinaryKind::kDiv) return false;
    int hidden = 0;
    for (const ValueId id : node.operands) {
      if (uses_.width(id) == width_ && uses_.constant(id) < 0) {
        mark(id);
        ++hidden;
      } else if (!is_same_for_all(id)) {
        return false;
      }
    }
    if (hidden != (sum ? 2 : 1)) return false;
    mark(node.result);
    return true;
  }

  Result<bool> look_at_user(const Node& node, size_t operand) {
    if (std::holds_alternative<LinearOp>(node.op))
      return operand == 0 && add_columns(node.operands[1]);
    if (const auto* moe = std::get_if<MoeOp>(&node.op)) {
      for (size_t i = 2; i < moe->down(); ++i)
        if (operand != 0 || !add_columns(node.operands[i])) return false;
      return true;
    }
    if (is_norm(node)) return look_at_norm(node, operand);
    return look_at_binary(node);
  }

  static bool is_norm(const Node& node) {
    return std::holds_alternative<RmsNormOp>(node.op) ||
           std::holds_alternative<LayerNormOp>(node.op);
  }

  Result<bool> look_at_norm(const Node& node, size_t operand) {
    if (operand != 0 || !uses_.is_own_weight(node.operands[1])) return false;
    POME_ASSIGN_OR_RETURN(const std::vector<float> gains,
                          read_vector(uses_.data(node.operands[1])));
    const bool plain = std::all_of(gains.begin(), gains.end(), [](float g) { return g == 1; });
    if (!plain) {
      const Node* const head = uses_.only_user(node.result);
      const bool tied = head && std::holds_alternative<LinearOp>(head->op) && may_insert_ &&
                        head->operands[0] == node.result && !tied_norm;
      if (!tied) return false;
      const bool safe = std::all_of(gains.begin(), gains.end(), [](float g) {
        return std::isfinite(g) && std::fabs(g) > 1e-6f;
      });
      if (!safe) return false;
      tied_norm = &node;
    }
    if (std::holds_alternative<LayerNormOp>(node.op)) {
      keeps_ones = true;
      if (!uses_.is_own_weight(node.operands[2])) return false;
      vectors.insert(uses_.constant(node.operands[2]));
    }
    mark(node.result);
    return true;
  }

  const GraphUses& uses_;
  const bool may_insert_;
  int64_t width_ = 0;
  std::set<ValueId> seen_;
  std::vector<ValueId> open_;
};

// diag(v)
class Diagonal final : public ConstantData {
 public:
  explicit Diagonal(std::vector<float> values)
      : ConstantData({static_cast<int64_t>(values.size()), static_cast<int64_t>(values.size())},
                     Encoding::plain(EncodingKind::kF32)),
        values_(std::move(values)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    std::vector<float> out(static_cast<size_t>(rows * columns()), 0.0f);
    for (int64_t i = 0; i < rows; ++i)
      out[static_cast<size_t>(i * columns() + row + i)] = values_[static_cast<size_t>(row + i)];
    const auto bytes = std::as_bytes(std::span(out));
    tile->row = row;
    tile->rows = rows;
    tile->storage.assign(1, {bytes.begin(), bytes.end()});
    tile->parts.assign(1, tile->storage[0]);
    return {};
  }

 private:
  std::vector<float> values_;
};

// The gain of the norm before a tied head becomes a product in the new basis, Q' diag(g) Q.
Result<Constant> take_gain(const GraphUses& uses, const Node& norm, const BasisMapPtr& map,
                           TransformPlan* plan) {
  POME_ASSIGN_OR_RETURN(std::vector<float> gains, read_vector(uses.data(norm.operands[1])));
  auto behind = std::make_shared<BasisMap>(*map);
  behind->scale = gains;
  if (norm.operands.size() == 3) {
    auto back = std::make_shared<BasisMap>();  // the caller rotates it then
    back->size = map->size;
    for (const float gain : gains) back->scale.push_back(1 / gain);
    plan->vector(uses.constant(norm.operands[2]), back);
  }
  plan->replace(uses.constant(norm.operands[1]), std::vector<float>(gains.size(), 1.0f));
  Constant product;
  product.name = inserted_weight_name(uses.graph().name(norm.result));
  // What meets it is what met the head, without the gain.
  const Node& head = *uses.only_user(norm.result);
  const int32_t table = uses.constant(head.operands[1]);
  const auto found =
      plan->statistics().find(uses.graph().constants[static_cast<size_t>(table)].name);
  if (found != plan->statistics().end() && found->second[0])
    plan->statistics()[product.name] = {mapped_moments(*found->second[0], *behind, 0)};
  product.data = map_rows(map_columns(std::make_shared<Diagonal>(std::move(gains)), map), map,
                          make_piece_cache());
  return product;
}

}  // namespace

Result<Transformed> rotate_residual(const Graph& graph, const ActivationStatistics& statistics,
                                    uint64_t seed, bool may_insert) {
  TransformPlan plan(graph, statistics);
  const GraphUses uses(graph);
  Stream stream(uses, may_insert);
  POME_ASSIGN_OR_RETURN(const bool found, stream.find());
  if (!found) {
    plan.obstacle(stream.obstacle);
    return std::move(plan).finish();
  }
  auto map = std::make_shared<BasisMap>();
  map->size = stream.width();
  map->blocks = {Rotation::random(stream.width(), seed, stream.keeps_ones)};
  std::optional<Constant> product;
  if (stream.tied_norm) {
    POME_ASSIGN_OR_RETURN(product, take_gain(uses, *stream.tied_norm, map, &plan));
  }
  for (const auto& [constant, count] : stream.columns) plan.columns(constant, map);
  for (const int32_t constant : stream.rows) plan.rows(constant, map);
  for (const int32_t constant : stream.vectors) plan.vector(constant, map);
  // Last: it numbers values and constants anew.
  if (product)
    plan.graph() = insert_product(plan.graph(), stream.tied_norm->result, std::move(*product));
  plan.changed();
  return std::move(plan).finish();
}

}  // namespace pome
