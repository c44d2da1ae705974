#include "graph/passes.h"

#include <algorithm>
#include <bit>

#include "graph/rewriter.h"

namespace pome {

Rewriter::Rewriter(const Graph& from) : from_(from) { out_.info = from.info; }

ValueId Rewriter::mapped(ValueId old_id) const {
  const auto found = map_.find(old_id);
  POME_CHECK(found != map_.end());
  return found->second;
}

std::vector<ValueId> Rewriter::mapped(const std::vector<ValueId>& old_ids) const {
  std::vector<ValueId> out;
  for (const ValueId id : old_ids) out.push_back(mapped(id));
  return out;
}

void Rewriter::copy(const Node& node) {
  Op op = node.op;
  if (auto* constant = std::get_if<ConstantOp>(&op)) {
    const auto [entry, fresh] =
        constants_.try_emplace(constant->constant, static_cast<int32_t>(out_.constants.size()));
    if (fresh) out_.constants.push_back(from_.constants[static_cast<size_t>(constant->constant)]);
    constant->constant = entry->second;
  }
  const ValueId id = static_cast<ValueId>(out_.values.size());
  std::vector<ValueId> operands = mapped(node.operands);
  out_.values.push_back(from_.values[static_cast<size_t>(node.result)]);
  out_.nodes.push_back({std::move(op), std::move(operands), id});
  map_[node.result] = id;
}

void Rewriter::replace(ValueId old_id, ValueId new_id) {
  map_[old_id] = new_id;
  out_.values[static_cast<size_t>(new_id)].name = from_.name(old_id);
}

void Rewriter::redirect(ValueId old_id, ValueId new_id) { map_[old_id] = new_id; }

ValueId Rewriter::emit(Op op, std::vector<ValueId> operands, std::string name) {
  std::vector<ValueType> types;
  for (const ValueId id : operands) types.push_back(out_.type(id));
  auto type = infer_type(op, types, out_.constants);
  POME_CHECK(type.ok());
  const ValueId id = static_cast<ValueId>(out_.values.size());
  // A name with this sign cannot clash with one of a builder.
  if (name.empty()) name = "~" + std::to_string(id);
  out_.values.push_back({std::move(*type), std::move(name)});
  out_.nodes.push_back({std::move(op), std::move(operands), id});
  return id;
}

ValueId Rewriter::input(std::string name, ValueType type) {
  const ValueId id = static_cast<ValueId>(out_.values.size());
  out_.values.push_back({std::move(type), std::move(name)});
  out_.nodes.push_back({InputOp{}, {}, id});
  return id;
}

ValueId Rewriter::scalar(float value) {
  const auto [entry, fresh] = scalars_.try_emplace(std::bit_cast<uint32_t>(value), kNoValue);
  if (fresh) {
    Constant constant;
    constant.name = "~scalar." + std::to_string(out_.constants.size());
    constant.role = Constant::Role::kTable;
    constant.data = inline_constant(Tensor::from_f32({}, {value}));
    entry->second = this->constant(std::move(constant));
  }
  return entry->second;
}

ValueId Rewriter::constant(Constant constant) {
  out_.constants.push_back(std::move(constant));
  return emit(ConstantOp{static_cast<int32_t>(out_.constants.size() - 1)}, {});
}

Graph Rewriter::finish(ValueId output) {
  out_.source_hash = from_.source_hash;
  out_.output = mapped(output);
  if (has(from_.token_ids)) out_.token_ids = mapped(from_.token_ids);
  if (out_.hidden_in == kNoValue && has(from_.hidden_in)) out_.hidden_in = mapped(from_.hidden_in);
  if (has(from_.position)) out_.position = mapped(from_.position);
  for (const CachePair& cache : from_.caches)
    if (has(cache.input) && has(cache.output))
      out_.caches.push_back({mapped(cache.input), mapped(cache.output), cache.layer, cache.kind});
  for (const ValueId id : from_.layer_outputs)
    if (has(id)) out_.layer_outputs.push_back(mapped(id));
  return std::move(out_);
}

namespace {

// Marks what `targets` need, looking no further back than `stop`.
std::vector<bool> needed_values(const Graph& graph, const std::vector<ValueId>& targets,
                                ValueId stop) {
  std::vector<bool> needed(graph.values.size(), false);
  for (const ValueId id : targets) needed[static_cast<size_t>(id)] = true;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (!needed[static_cast<size_t>(node->result)] || node->result == stop) continue;
    for (const ValueId id : node->operands) needed[static_cast<size_t>(id)] = true;
  }
  return needed;
}

}  // namespace

Graph remove_dead(const Graph& graph) {
  std::vector<ValueId> targets = {graph.output};
  for (const CachePair& cache : graph.caches) targets.push_back(cache.output);
  const std::vector<bool> needed = needed_values(graph, targets, kNoValue);
  Rewriter out(graph);
  for (const Node& node : graph.nodes)
    if (needed[static_cast<size_t>(node.result)] || std::holds_alternative<InputOp>(node.op))
      out.copy(node);
  return out.finish();
}

namespace {

Result<Graph> cut(const Graph& graph, ValueId start, ValueId output, std::vector<ValueId> targets) {
  targets.push_back(output);
  const std::vector<bool> needed = needed_values(graph, targets, start);
  Rewriter out(graph);
  ValueId hidden = kNoValue;
  if (start != kNoValue) {
    hidden = out.input("hidden_in", graph.type(start));
    out.replace(start, hidden);
  }
  for (const Node& node : graph.nodes)
    if (needed[static_cast<size_t>(node.result)] && node.result != start) out.copy(node);
  Graph part = out.finish(output);
  if (hidden != kNoValue) {
    part.hidden_in = hidden;
    // The boundary belongs to the part before.
    part.layer_outputs.erase(
        std::remove(part.layer_outputs.begin(), part.layer_outputs.end(), hidden),
        part.layer_outputs.end());
  }
  POME_RETURN_IF_ERROR(validate(part));
  return part;
}

}  // namespace

Result<Graph> part_of(const Graph& graph, ValueId start, ValueId output) {
  return cut(graph, start, output, {});
}

std::string inserted_weight_name(const std::string& value_name) {
  return value_name + ".basis.weight";
}

Graph insert_product(const Graph& graph, ValueId value, Constant weight) {
  weight.inserted = true;
  Rewriter out(graph);
  for (const Node& node : graph.nodes) {
    out.copy(node);
    if (node.result != value) continue;
    const ValueId matrix = out.constant(weight);
    const ValueId product =
        out.emit(LinearOp{}, {out.mapped(value), matrix}, graph.name(value) + ".basis");
    out.redirect(value, product);
  }
  return out.finish();
}

Graph remove_inserted(const Graph& graph) {
  Rewriter out(graph);
  for (const Node& node : graph.nodes) {
    const auto* const constant = std::get_if<ConstantOp>(&node.op);
    if (constant && graph.constants[static_cast<size_t>(constant->constant)].inserted) continue;
    const bool stands_for = std::any_of(node.operands.begin(), node.operands.end(),
                                        [&](ValueId id) { return !out.has(id); });
    if (stands_for)
      out.redirect(node.result, out.mapped(node.operands[0]));
    else
      out.copy(node);
  }
  return out.finish();
}

Result<std::vector<Graph>> cut_layers(const Graph& graph, std::span<const int32_t> cuts) {
  const int32_t layers = static_cast<int32_t>(graph.layer_outputs.size());
  int32_t last = 0;
  for (const int32_t cut : cuts) {
    if (cut <= last || cut >= layers)
      return usage_error("cut " + std::to_string(cut) + " must lie behind cut " +
                         std::to_string(last) + " and before layer " + std::to_string(layers));
    last = cut;
  }
  std::vector<Graph> parts;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const int32_t begin = i == 0 ? 0 : cuts[i - 1], end = i == cuts.size() ? layers : cuts[i];
    const ValueId start =
        begin == 0 ? kNoValue : graph.layer_outputs[static_cast<size_t>(begin - 1)];
    const ValueId output =
        end == layers ? graph.output : graph.layer_outputs[static_cast<size_t>(end - 1)];
    std::vector<ValueId> caches;
    for (const CachePair& cache : graph.caches)
      if (cache.layer >= begin && cache.layer < end) caches.push_back(cache.output);
    POME_ASSIGN_OR_RETURN(Graph part, cut(graph, start, output, std::move(caches)));
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace pome
