// What rounding for the activations of a text will take, from shapes alone.
#include <algorithm>
#include <map>
#include <string>

#include "pipeline/layer_chain.h"
#include "pipeline/streamed.h"

namespace pome {

namespace {

double experts_per_token(const Graph& graph) {
  for (const Node& node : graph.nodes)
    if (const auto* top = std::get_if<TopKMaskOp>(&node.op)) return static_cast<double>(top->k);
  return 1;
}

}  // namespace

StreamEstimate estimate_stream(const Graph& graph, int64_t tokens, const StreamOptions& options) {
  StreamEstimate out;
  const LayerChain chain = layer_chain(graph);
  out.parts = static_cast<int64_t>(chain.parts.size()) + (chain.head.empty() ? 0 : 1);
  std::map<std::string, const ConstantData*> data;
  for (const Constant& constant : graph.constants) data[constant.name] = constant.data.get();
  const double t = static_cast<double>(tokens), chosen = experts_per_token(graph);
  // The moments, their factor, and the form that refining needs.
  const uint64_t held = options.rounding.rounds > 0 ? 3 : 2;
  uint64_t kept = 0;  // of one layer
  for (const ReadValue& value : read_values(graph)) {
    const double k = static_cast<double>(value.columns), e = static_cast<double>(value.experts);
    const bool head = value.weights == chain.head;
    double n = 0;
    for (const std::string& weight : value.weights) n += static_cast<double>(data[weight]->rows());
    // Products of the layer (an expert sees few of the tokens), moments, factor, rounding; finding
    // and checking a grid takes about as long as a thousand multiply-adds for each weight.
    constexpr double kGrid = 1000;
    const double seen = e > 1 ? t * chosen : t, products = head ? 0 : seen * n / e * k;
    out.multiply_adds += products + seen * k * k / 2 + e * k * k * k / 6 + kGrid * n * k;
    out.multiply_adds += n * k * k / 2 * (1 + 2 * options.rounding_for(value.columns).rounds);
    uint64_t rows = 0;
    if (options.behind_quantised) {
      // The second stream up to each value, and to the end; cross moments, their solution.
      const bool narrow = value.by_token && !head && value.weights.size() == 1 && n <= k;
      out.multiply_adds += narrow || !value.by_token ? 2 * products : products;
      if (narrow)
        out.multiply_adds += t * n * k + n * k * k;
      else if (value.by_token)
        out.multiply_adds += t * k * k + (n < k ? 2 * n : n + k) * k * k;
      rows = value.by_token ? static_cast<uint64_t>(k * t) * sizeof(float) : 0;
      kept += head ? 0 : rows;
    }
    out.memory_bytes =
        std::max(out.memory_bytes, rows + held * std::min(value.bytes(), options.most_bytes));
  }
  out.memory_bytes += kept / std::max<size_t>(1, graph.layer_outputs.size());
  uint64_t widest = 0;
  for (const ValueId id : graph.layer_outputs)
    widest = std::max(widest, static_cast<uint64_t>(graph.type(id).shape.back().size));
  out.memory_bytes += 4 * widest * static_cast<uint64_t>(tokens) * sizeof(float);
  return out;
}

}  // namespace pome
