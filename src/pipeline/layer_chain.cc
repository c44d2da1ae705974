#include "pipeline/layer_chain.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <utility>

#include "graph/passes.h"

namespace pome {

namespace {

constexpr int64_t kChunk = 256;  // tokens per step of a layer

// The parts of a layer: it may be cut behind a sum of a hidden state and what weights give, where
// the rest of it needs nothing else of what is before.
std::vector<ChainPart> parts_of_layer(const Graph& graph, ValueId start, ValueId end) {
  std::vector<ChainPart> out;
  const auto layer = part_of(graph, start, end);
  if (!layer.ok()) return {{start, end}};
  std::set<std::string> inside;
  for (const Node& node : layer->nodes) inside.insert(layer->name(node.result));
  const ValueType& hidden = graph.type(end);
  for (const Node& node : graph.nodes) {
    const auto* const binary = std::get_if<BinaryOp>(&node.op);
    if (!binary || binary->kind != BinaryKind::kAdd || node.result == end ||
        !(graph.type(node.result) == hidden) || !inside.count(graph.name(node.result)) ||
        !part_of(graph, node.result, end).ok())
      continue;
    const auto before = part_of(graph, start, node.result);
    if (!before.ok() || read_values(*before).empty()) continue;
    out.push_back({start, node.result});
    start = node.result;
  }
  out.push_back({start, end});
  return out;
}

}  // namespace

LayerChain layer_chain(const Graph& graph) {
  LayerChain out;
  ValueId start = kNoValue;
  for (const ValueId end : graph.layer_outputs) {
    for (const ChainPart& part : parts_of_layer(graph, start, end)) out.parts.push_back(part);
    start = end;
  }
  const auto of_vocabulary = [&](const std::string& weight) {
    const auto constant = std::find_if(graph.constants.begin(), graph.constants.end(),
                                       [&](const Constant& c) { return c.name == weight; });
    return constant->role == Constant::Role::kHead || constant->role == Constant::Role::kEmbedding;
  };
  for (const ReadValue& value : read_values(graph)) {
    std::copy_if(value.weights.begin(), value.weights.end(), std::back_inserter(out.head),
                 of_vocabulary);
    if (out.head.empty()) continue;
    if (value.value != start) out.parts.push_back({start, value.value});
    break;
  }
  return out;
}

ReadValue head_value(const LayerChain& chain, const std::vector<float>& rows, int64_t tokens) {
  ReadValue value;
  value.first = chain.head.front();
  value.columns = static_cast<int64_t>(rows.size()) / tokens;
  value.weights = chain.head;
  return value;
}

Result<std::vector<float>> LayerRunner::run(const Graph& graph, const ChainPart& part,
                                            const std::vector<float>& rows,
                                            std::shared_ptr<ActivationObserver> observer) const {
  if (part.start == part.end) return rows;
  POME_ASSIGN_OR_RETURN(const Graph cut, part_of(graph, part.start, part.end));
  PlanOptions options;
  options.threads = work_.threads;
  options.capacity = std::min<int64_t>(window_, graph.info.max_position_embeddings);
  options.chunk = kChunk;
  options.observer = std::move(observer);
  WorkContext quiet = work_;
  quiet.progress = nullptr;
  POME_ASSIGN_OR_RETURN(const auto plan, compile(cut, options, quiet));
  POME_ASSIGN_OR_RETURN(const auto runner, plan->new_part());
  runner->set_cancel(work_.cancel);
  const auto columns = [&](ValueId id) {
    return static_cast<size_t>(cut.type(id).shape.back().size);
  };
  const size_t in = part.start == kNoValue ? 0 : columns(cut.hidden_in), out = columns(cut.output),
               window = static_cast<size_t>(options.capacity);
  std::vector<float> result(ids_.size() * out);
  for (size_t at = 0; at < ids_.size(); at += window) {
    const size_t count = std::min(window, ids_.size() - at);
    const auto to = std::span(result).subspan(at * out, count * out);
    runner->restart();
    POME_RETURN_IF_ERROR(in == 0 ? runner->run(ids_.subspan(at, count), to)
                                 : runner->run(std::span(rows).subspan(at * in, count * in), to));
  }
  return result;
}

Status watch_layers(const Graph& graph, std::span<const int32_t> ids, int64_t window,
                    const std::function<bool(const ReadValue&)>& whole, const SeeMoments& see,
                    const WorkContext& work) {
  const LayerChain chain = layer_chain(graph);
  const LayerRunner runner(ids, window, work);
  POME_ASSIGN_OR_RETURN(const Isa isa, selected_isa());
  std::vector<float> rows;
  if (work.progress) work.progress->begin("calibrate", chain.parts.size(), "parts");
  for (size_t i = 0; i < chain.parts.size(); ++i) {
    const ChainPart& part = chain.parts[i];
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    POME_ASSIGN_OR_RETURN(const Graph cut, part_of(graph, part.start, part.end));
    const auto collector =
        std::make_shared<MomentCollector>(read_values(cut), whole, isa, work.threads);
    POME_ASSIGN_OR_RETURN(rows, runner.run(graph, part, rows, collector));
    for (const ReadValue& value : collector->values())
      POME_RETURN_IF_ERROR(see(value, collector->take(value)));
    if (work.progress) work.progress->advance(i + 1);
  }
  if (!chain.head.empty()) {
    const ReadValue value = head_value(chain, rows, static_cast<int64_t>(ids.size()));
    ThreadPool pool(work.threads);
    MomentSums sums(value.columns, whole(value));
    sums.add(rows.data(), static_cast<int64_t>(ids.size()), kernels::choose_panel(isa), &pool);
    POME_RETURN_IF_ERROR(see(value, {sums.take(kernels::choose_panel(isa), &pool)}));
  }
  if (work.progress) work.progress->end();
  return {};
}

}  // namespace pome
