#include "graph/split.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/columns.h"
#include "graph/hidden_units.h"
#include "graph/passes.h"
#include "graph/rewriter.h"

namespace pome {

namespace {

constexpr int64_t kGroup = 16;  // rows that share a palette: parts are whole groups
constexpr int64_t kLeast = 8 * kGroup;

struct Range {
  int64_t first = 0, count = 0;
};
// Ends in eighths of all.
std::vector<Range> ranges_of(int64_t all, std::initializer_list<int64_t> eighths) {
  std::vector<Range> out;
  int64_t first = 0;
  for (const int64_t eighth : eighths) {
    const int64_t end = eighth == 8 ? all : all * eighth / 8 / kGroup * kGroup;
    out.push_back({first, end - first});
    first = end;
  }
  return out;
}

class Splitter {
 public:
  explicit Splitter(const Graph& graph) : graph_(graph), uses_(graph), out_(graph) {}

  Result<Split> split() {
    POME_RETURN_IF_ERROR(for_each_network(
        uses_, [&](const HiddenUnits& found, const Node& down) { return note(found, down); }));
    for (size_t i = 0; i < graph_.constants.size(); ++i) note_table(static_cast<int32_t>(i));
    for (const Node& node : graph_.nodes) copy(node);
    return Split{remove_dead(out_.finish()), static_cast<int64_t>(networks_.size()),
                 static_cast<int64_t>(tables_.size())};
  }

 private:
  Status note(const HiddenUnits& found, const Node& down) {
    if (found.inside.empty() || found.units < kLeast) return {};
    networks_.emplace(&down, found);
    for (const Node* node : found.inside) inside_.insert(node);
    return {};
  }
  // The embedding or the head, where nothing but a lookup or a product reads it.
  void note_table(int32_t index) {
    const Constant& constant = graph_.constants[static_cast<size_t>(index)];
    const Shape& shape = constant.data->shape();
    if ((constant.role != Constant::Role::kEmbedding && constant.role != Constant::Role::kHead) ||
        shape.size() != 2 || shape[0] < kLeast || !is_plain(*constant.data))
      return;
    for (const Use& use : uses_.uses_of_constant(index))
      if (!(std::holds_alternative<EmbeddingOp>(use.node->op) && use.operand == 0) &&
          !(std::holds_alternative<LinearOp>(use.node->op) && use.operand == 1))
        return;
    tables_.emplace(index, ranges_of(shape[0], {1, 2, 4, 8}));
  }

  void copy(const Node& node) {
    if (inside_.count(&node) > 0) return;  // with what reads it
    if (const auto network = networks_.find(&node); network != networks_.end())
      return copy_network(network->second, node);
    if (const auto sum = sums_.find(&node); sum != sums_.end())
      return out_.replace(node.result, sum->second);
    const bool embedding = std::holds_alternative<EmbeddingOp>(node.op);
    if (embedding || std::holds_alternative<LinearOp>(node.op)) {
      const auto table = tables_.find(uses_.constant(node.operands[embedding ? 0 : 1]));
      if (table != tables_.end())
        return embedding ? copy_embedding(table->second, node) : copy_head(table->second, node);
    }
    out_.copy(node);
  }
  // Of each kind of part there is one constant, whoever reads it.
  ValueId part_of(ValueId value, size_t part, const ConstantDataPtr& data, Range rows = {}) {
    const auto [known, fresh] = parts_.try_emplace({uses_.constant(value), part}, kNoValue);
    if (!fresh) return known->second;
    Constant constant = graph_.constants[static_cast<size_t>(uses_.constant(value))];
    constant.name = part_name(constant.name, part);
    constant.gguf_name = {};
    constant.gguf_place = {};
    constant.first_row = rows.first;
    constant.data = data;
    return known->second = out_.constant(std::move(constant));
  }
  const ConstantDataPtr& data(ValueId value) const {
    return graph_.constants[static_cast<size_t>(uses_.constant(value))].data;
  }
  ValueId part_of_rows(ValueId value, size_t part, Range range) {
    const ConstantDataPtr& whole = data(value);
    if (whole->rows() == 1)
      return part_of(value, part, slice_elements(whole, range.first, range.count), range);
    return part_of(value, part, slice_rows(whole, range.first, {range.count, whole->columns()}),
                   range);
  }

  void copy_network(const HiddenUnits& network, const Node& down) {
    const std::vector<Range> ranges = ranges_of(network.units, {2, 7, 8});
    // What the output is added to, where that alone is done with it and is there already.
    const Node* const sum = uses_.only_user(down.result);
    ValueId so_far = kNoValue;
    const auto* const binary = sum ? std::get_if<BinaryOp>(&sum->op) : nullptr;
    if (binary && binary->kind == BinaryKind::kAdd && sum->operands[0] != sum->operands[1]) {
      const ValueId other = sum->operands[sum->operands[0] == down.result ? 1 : 0];
      if (out_.has(other) && graph_.type(other) == graph_.type(down.result))
        so_far = out_.mapped(other);
    }
    const bool chained = so_far != kNoValue;
    for (size_t part = 0; part < ranges.size(); ++part) {
      std::map<ValueId, ValueId> made;
      const auto of_part = [&](ValueId id) {
        const auto found = made.find(id);
        return found != made.end() ? found->second : out_.mapped(id);
      };
      for (const Node* node : network.inside) {
        std::vector<ValueId> operands;
        for (size_t i = 0; i < node->operands.size(); ++i)
          operands.push_back(i > 0 && std::holds_alternative<LinearOp>(node->op)
                                 ? part_of_rows(node->operands[i], part, ranges[part])
                                 : of_part(node->operands[i]));
        made[node->result] =
            out_.emit(node->op, std::move(operands), part_name(graph_.name(node->result), part));
      }
      std::vector<ValueId> operands = {
          of_part(down.operands[0]),
          part_of(down.operands[1], part,
                  slice_columns(data(down.operands[1]), ranges[part].first, ranges[part].count))};
      if (down.operands.size() == 3 && part == 0)
        operands.push_back(part_of(down.operands[2], 0, data(down.operands[2])));
      const std::string name = part_name(graph_.name(down.result), part);
      const ValueId product = out_.emit(down.op, std::move(operands), name);
      so_far = so_far == kNoValue
                   ? product
                   : out_.emit(BinaryOp{BinaryKind::kAdd}, {so_far, product}, name + ".sum");
    }
    if (chained)
      sums_.emplace(sum, so_far);
    else
      out_.replace(down.result, so_far);
  }

  void copy_embedding(const std::vector<Range>& ranges, const Node& node) {
    const ValueId ids = out_.mapped(node.operands[1]);
    const auto number = [&](int64_t n) {  // i32 [1]
      const auto [known, fresh] = numbers_.try_emplace(n, kNoValue);
      if (fresh) known->second = out_.emit(IotaOp{1, n}, {});
      return known->second;
    };
    const auto binary = [&](BinaryKind kind, ValueId x, ValueId y) {
      return out_.emit(BinaryOp{kind}, {x, y});
    };
    SymShape column = out_.type(ids).shape;
    column.push_back(1);
    const ValueId turned = out_.emit(ReshapeOp{column}, {ids});
    ValueId rows = kNoValue;
    for (size_t part = 0; part < ranges.size(); ++part) {
      const Range& range = ranges[part];
      const ValueId table = part_of_rows(node.operands[0], part, range);
      ValueId at = part == 0 ? ids : binary(BinaryKind::kSub, ids, number(range.first));
      if (part > 0) at = binary(BinaryKind::kMax, at, number(0));
      if (part + 1 < ranges.size()) at = binary(BinaryKind::kMin, at, number(range.count - 1));
      const ValueId found =
          out_.emit(EmbeddingOp{}, {table, at}, part_name(graph_.name(node.result), part));
      rows = part == 0
                 ? found
                 : out_.emit(SelectOp{},
                             {binary(BinaryKind::kLess, turned, number(range.first)), rows, found});
    }
    out_.replace(node.result, rows);
  }

  void copy_head(const std::vector<Range>& ranges, const Node& node) {
    std::vector<ValueId> parts;
    for (size_t part = 0; part < ranges.size(); ++part) {
      std::vector<ValueId> operands = {out_.mapped(node.operands[0]),
                                       part_of_rows(node.operands[1], part, ranges[part])};
      if (node.operands.size() == 3)
        operands.push_back(part_of_rows(node.operands[2], part, ranges[part]));
      parts.push_back(
          out_.emit(node.op, std::move(operands), part_name(graph_.name(node.result), part)));
    }
    const auto axis = static_cast<int32_t>(graph_.type(node.result).shape.size()) - 1;
    out_.replace(node.result, out_.emit(ConcatOp{axis}, std::move(parts)));
  }

  const Graph& graph_;
  const GraphUses uses_;
  Rewriter out_;
  std::map<const Node*, HiddenUnits> networks_;  // by what reads the units
  std::set<const Node*> inside_;
  std::map<const Node*, ValueId> sums_;           // additions that are done, and their results
  std::map<int32_t, std::vector<Range>> tables_;  // by constant
  std::map<std::pair<int32_t, size_t>, ValueId> parts_;
  std::map<int64_t, ValueId> numbers_;
};

}  // namespace

std::string part_name(const std::string& name, size_t part) {
  const size_t dot = name.rfind('.');
  const std::string suffix = ".part" + std::to_string(part);
  return dot == std::string::npos ? name + suffix : name.substr(0, dot) + suffix + name.substr(dot);
}

Result<Split> split_parts(const Graph& graph) {
  POME_ASSIGN_OR_RETURN(Split out, Splitter(graph).split());
  POME_RETURN_IF_ERROR(validate(out.graph));
  return out;
}

}  // namespace pome
