// Hidden units of feed-forward networks in another order, and of another size.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "graph/hidden_units.h"
#include "quantize/transform.h"
#include "quantize/transform_plan.h"

namespace pome {

namespace {

constexpr double kLeastSquare = 1e-6;  // of a column, in parts of the largest

// Multiplies the squared norms of rows, or of columns of each set, into `sizes`.
Status multiply_norms(const ConstantData& data, bool of_columns, int64_t sets,
                      std::vector<double>* sizes) {
  std::vector<double> squares(sizes->size(), 0.0);
  const int64_t step = tile_rows(data), columns = data.columns(), per_set = data.rows() / sets;
  std::vector<float> tile;
  for (int64_t row = 0; row < data.rows(); row += step) {
    const int64_t count = std::min(step, data.rows() - row);
    tile.resize(static_cast<size_t>(count * columns));
    POME_RETURN_IF_ERROR(data.read_f32(row, count, tile.data()));
    for (int64_t i = 0; i < count; ++i) {
      const float* const values = tile.data() + i * columns;
      if (of_columns) {
        double* const to = squares.data() + (row + i) / per_set * columns;
        for (int64_t c = 0; c < columns; ++c) to[c] += static_cast<double>(values[c]) * values[c];
      } else {
        double square = 0;
        for (int64_t c = 0; c < columns; ++c) square += static_cast<double>(values[c]) * values[c];
        squares[static_cast<size_t>(row + i)] = square;
      }
    }
  }
  // What is not a number is refused when it is rounded.
  for (size_t i = 0; i < squares.size(); ++i)
    (*sizes)[i] = std::isfinite((*sizes)[i] * squares[i]) ? (*sizes)[i] * squares[i] : 0;
  return {};
}

// The factor of gated units that is not activated, and its bias: -1 where there is none.
struct Linear {
  int32_t weight = -1, bias = -1;
};
Linear free_factor(const GraphUses& uses, const Node& node, const HiddenUnits& found) {
  if (const auto* const moe = std::get_if<MoeOp>(&node.op)) {
    // Limits and offsets are not scaled with the factor.
    if (!moe->gated || moe->limit != 0 || moe->up_offset != 0) return {};
    return {found.makers[1], found.biases.empty() ? -1 : found.biases[1]};
  }
  const Node& gated = uses.producer(node.operands[0]);
  if (!std::holds_alternative<SwigluOp>(gated.op)) return {};
  const Node& up = uses.producer(gated.operands[1]);
  if (!std::holds_alternative<LinearOp>(up.op) || gated.operands[0] == gated.operands[1]) return {};
  return {uses.constant(up.operands[1]),
          up.operands.size() == 3 ? uses.constant(up.operands[2]) : -1};
}

Status scale(const HiddenUnits& found, const Linear& up, const Graph& graph, TransformPlan* plan) {
  std::vector<double> squares(static_cast<size_t>(found.sets * found.units), 1.0);
  POME_RETURN_IF_ERROR(multiply_norms(*graph.constants[static_cast<size_t>(found.down)].data, true,
                                      found.sets, &squares));
  const double largest = *std::max_element(squares.begin(), squares.end());
  const auto rows = std::make_shared<BasisMap>(), columns = std::make_shared<BasisMap>();
  rows->size = columns->size = found.units;
  rows->sets = columns->sets = found.sets;
  for (const double square : squares) {
    // Widths to the power of 3/4: where palettes lose least (docs/quantisation.md). Units that do
    // next to nothing are not blown up.
    const double root = std::sqrt(std::sqrt(std::max(square / largest, kLeastSquare)));
    const auto by = static_cast<float>(root * std::sqrt(root));
    rows->scale.push_back(by);
    columns->scale.push_back(1 / by);
  }
  plan->rows(up.weight, rows);
  if (up.bias >= 0) plan->vector(up.bias, rows);
  plan->columns(found.down, columns);
  plan->changed();
  return {};
}

Status order(const HiddenUnits& found, const Graph& graph, TransformPlan* plan) {
  const auto data = [&](int32_t constant) -> const ConstantData& {
    return *graph.constants[static_cast<size_t>(constant)].data;
  };
  std::vector<double> sizes(static_cast<size_t>(found.sets * found.units), 1.0);
  for (const int32_t maker : found.makers)
    POME_RETURN_IF_ERROR(multiply_norms(data(maker), false, found.sets, &sizes));
  POME_RETURN_IF_ERROR(multiply_norms(data(found.down), true, found.sets, &sizes));
  auto map = std::make_shared<BasisMap>();
  map->size = found.units;
  map->sets = found.sets;
  map->order.resize(sizes.size());
  for (int64_t set = 0; set < found.sets; ++set) {
    const auto begin = map->order.begin() + set * found.units;
    const double* const size = sizes.data() + set * found.units;
    std::iota(begin, begin + found.units, 0);
    std::stable_sort(begin, begin + found.units,
                     [size](int32_t a, int32_t b) { return size[a] < size[b]; });
  }
  for (const int32_t maker : found.makers) plan->rows(maker, map);
  for (const int32_t bias : found.biases) plan->vector(bias, map);
  plan->columns(found.down, map);
  plan->changed();
  return {};
}

}  // namespace

Result<Transformed> order_units(const Graph& graph, const ActivationStatistics& statistics) {
  TransformPlan plan(graph, statistics);
  const GraphUses uses(graph);
  POME_RETURN_IF_ERROR(for_each_network(
      uses, [&](const HiddenUnits& found, const Node&) { return order(found, graph, &plan); }));
  return std::move(plan).finish();
}

Result<Transformed> scale_units(const Graph& graph, const ActivationStatistics& statistics) {
  TransformPlan plan(graph, statistics);
  const GraphUses uses(graph);
  POME_RETURN_IF_ERROR(for_each_network(uses, [&](const HiddenUnits& found, const Node& node) {
    const Linear up = free_factor(uses, node, found);
    if (up.weight < 0) {
      plan.obstacle("the units of " + graph.name(node.result) + " have no factor of their own");
      return ok_status();
    }
    return scale(found, up, graph, &plan);
  }));
  return std::move(plan).finish();
}

Result<Split> split_weights(const Graph& graph, ThreadPool* pool) {
  POME_ASSIGN_OR_RETURN(const GraphHashes hashes, hash_graph(graph, pool));
  POME_ASSIGN_OR_RETURN(const Transformed ordered, order_units(graph, {}));
  POME_ASSIGN_OR_RETURN(Split out, split_parts(ordered.graph));
  out.graph.source_hash = hashes.source_hash;
  return out;
}

}  // namespace pome
