#include "quantize/refine.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quantize/refine_scales.h"
#include "tensor/half.h"

namespace pome {

namespace {

constexpr int64_t kColumns = 256;  // columns whose gradients are made together
constexpr int kSweeps = 2;         // over scales and levels of these; cheap beside the gradients

// Blocks of columns [first, first + count) in grids that have blocks of one size.
std::vector<size_t> blocks_of(std::span<const RowGrid> grids, int64_t first, int64_t count) {
  std::vector<size_t> out;
  for (int64_t j = first; j < first + count && !grids.empty(); ++j)
    out.push_back(grids[0].block_of(j));
  return out;
}

// Errors of these columns, of rows of n.
void find_errors(std::span<const float> values, std::span<const RowGrid> grids,
                 std::span<const uint8_t> levels, int64_t n, int64_t first, int64_t count,
                 std::span<float> out) {
  const std::vector<size_t> blocks = blocks_of(grids, first, count);
  for (size_t row = 0; row < grids.size(); ++row) {
    const auto at = row * static_cast<size_t>(n) + static_cast<size_t>(first);
    for (size_t j = 0; j < blocks.size(); ++j)
      out[at + j] = values[at + j] - grids[row].value(blocks[j], levels[at + j]);
  }
}

std::vector<float> errors_of(std::span<const float> values, std::span<const RowGrid> grids,
                             std::span<const uint8_t> levels, int64_t n) {
  std::vector<float> out(values.size());
  find_errors(values, grids, levels, n, 0, n, out);
  return out;
}

// Columns [first, first + count); gives by how much e H e' grew.
double step_levels(const QuadraticForm& form, int64_t first, int64_t count,
                   std::span<const RowGrid> grids, std::span<float> gradients,
                   std::span<uint8_t> levels, std::span<float> errors) {
  const int64_t n = form.columns();
  const std::vector<size_t> blocks = blocks_of(grids, first, count);
  double change = 0;
  for (size_t row = 0; row < grids.size(); ++row) {
    const RowGrid& grid = grids[row];
    const auto at = static_cast<int64_t>(row) * n + first;
    float* const gradient = gradients.data() + static_cast<int64_t>(row) * count;
    float* const error = errors.data() + at;
    uint8_t* const level = levels.data() + at;
    for (int64_t j = 0; j < count; ++j) {
      const size_t block = blocks[static_cast<size_t>(j)];
      const float own = form.diagonal(first + j), now = grid.value(block, level[j]);
      float value = 0;
      const size_t best = grid.nearest(block, now + gradient[j] / own, &value);
      if (best == level[j]) continue;
      const float step = now - value;  // what the error grows by
      const float gain = step * (2 * gradient[j] + step * own);
      if (!(gain < 0)) continue;
      change += static_cast<double>(gain);
      level[j] = static_cast<uint8_t>(best);
      error[j] += step;
      form.add_line(first + j, step, first, count, gradient);
    }
  }
  return change;
}

}  // namespace

double refine_levels(const QuadraticForm& form, std::span<const float> values,
                     std::span<const RowGrid> grids, std::span<uint8_t> levels) {
  const int64_t n = form.columns();
  std::vector<float> errors = errors_of(values, grids, levels, n), gradients;
  double change = 0;
  for (int64_t first = 0; first < n; first += kColumns) {
    const int64_t count = std::min(kColumns, n - first);
    form.gradient(errors, first, count, &gradients);
    change += step_levels(form, first, count, grids, gradients, levels, errors);
  }
  return -change;
}

double refine_blocks(const QuadraticForm& form, const BlockRule& rule, const LevelsPtr& kinds,
                     std::span<const float> values, std::span<BlockScales> blocks,
                     std::span<RowGrid> grids, std::span<uint8_t> levels) {
  if (rule.columns > kColumns || rule.power) return refine_levels(form, values, grids, levels);
  const int64_t n = form.columns(), together = kColumns / rule.columns * rule.columns;
  ScaleRefiner scales(form, rule, kinds);
  std::vector<float> errors = errors_of(values, grids, levels, n), gradients;
  double change = 0;
  for (int64_t first = 0; first < n; first += together) {
    const int64_t count = std::min(together, n - first);
    form.gradient(errors, first, count, &gradients);
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      change -= scales.refine(first, count, levels, blocks, grids, gradients);
      change += step_levels(form, first, count, grids, gradients, levels, errors);
    }
    find_errors(values, grids, levels, n, first, count, errors);
  }
  return -change;
}

namespace {

// Sums over the elements of a group, by entry of its table.
struct Entries {
  std::vector<double> gradients, weights;
};

// What entries would move by, were a column's error nobody else's concern.
std::vector<double> steps_of(const Entries& sums) {
  std::vector<double> out;
  for (size_t i = 0; i < sums.gradients.size(); ++i)
    out.push_back(sums.weights[i] > 0 ? sums.gradients[i] / sums.weights[i] : 0.0);
  return out;
}

// The table moved; empty where that does not leave it strictly ascending.
std::vector<uint16_t> moved(std::span<const uint16_t> table, const std::vector<double>& steps,
                            double by) {
  std::vector<uint16_t> out;
  float last = 0;
  for (size_t i = 0; i < table.size(); ++i) {
    const auto value = static_cast<float>(f16_to_f32(table[i]) + by * steps[i]);
    if (!(std::fabs(value) <= 65504)) return {};
    out.push_back(f32_to_f16(value));
    const float now = f16_to_f32(out.back());
    if (i > 0 && !(now > last)) return {};
    last = now;
  }
  return out;
}

// values - table[level], of the rows of all groups.
std::vector<float> errors_of(std::span<const float> values, std::span<const uint8_t> levels,
                             std::span<const uint16_t> tables, size_t elements) {
  const size_t entries = tables.size() / (values.size() / elements);
  std::vector<float> table(tables.size()), out(values.begin(), values.end());
  f16_to_f32(tables, table);
  for (size_t i = 0; i < out.size(); ++i) out[i] -= table[i / elements * entries + levels[i]];
  return out;
}

std::vector<double> by_group(const std::vector<double>& costs, std::span<const float> row_weights,
                             size_t group) {
  std::vector<double> out(costs.size() / group, 0.0);
  for (size_t row = 0; row < costs.size(); ++row)
    out[row / group] += static_cast<double>(row_weights[row]) * costs[row];
  return out;
}

}  // namespace

double refine_tables(const QuadraticForm& form, std::span<const float> weights,
                     std::span<const float> row_weights, std::span<const float> values,
                     size_t group, std::span<const uint8_t> levels, std::span<uint16_t> tables) {
  const auto n = static_cast<size_t>(form.columns());
  const size_t elements = group * n, groups = values.size() / elements;
  const size_t entries = tables.size() / groups;
  const std::vector<float> errors = errors_of(values, levels, tables, elements);
  const std::vector<double> before = by_group(form.costs(errors), row_weights, group);
  std::vector<Entries> sums(groups, {std::vector<double>(entries), std::vector<double>(entries)});
  std::vector<float> gradients;
  for (size_t first = 0; first < n; first += kColumns) {
    const size_t count = std::min<size_t>(kColumns, n - first);
    form.gradient(errors, static_cast<int64_t>(first), static_cast<int64_t>(count), &gradients);
    for (size_t row = 0; row < groups * group; ++row)
      for (size_t j = 0; j < count; ++j) {
        Entries& to = sums[row / group];
        const size_t level = levels[row * n + first + j];
        const double by = row_weights[row];
        to.gradients[level] += by * static_cast<double>(gradients[row * count + j]);
        to.weights[level] += by * static_cast<double>(weights[first + j]);
      }
  }
  // The best length: what falls, first order, over what rises, second order.
  std::vector<std::vector<double>> steps;
  for (const Entries& one : sums) steps.push_back(steps_of(one));
  std::vector<float> direction(values.size());
  for (size_t i = 0; i < direction.size(); ++i)
    direction[i] = static_cast<float>(steps[i / elements][levels[i]]);
  const std::vector<double> rises = by_group(form.costs(direction), row_weights, group);
  std::vector<uint16_t> tried(tables.begin(), tables.end());
  for (size_t g = 0; g < groups; ++g) {
    double falls = 0;
    for (size_t i = 0; i < entries; ++i) falls += steps[g][i] * sums[g].gradients[i];
    if (!(rises[g] > 0)) continue;
    const std::vector<uint16_t> other =
        moved(tables.subspan(g * entries, entries), steps[g], falls / rises[g]);
    std::copy(other.begin(), other.end(), tried.begin() + static_cast<std::ptrdiff_t>(g * entries));
  }
  const std::vector<double> after =
      by_group(form.costs(errors_of(values, levels, tried, elements)), row_weights, group);
  double gain = 0;
  for (size_t g = 0; g < groups; ++g) {
    if (!(after[g] < before[g])) continue;
    gain += before[g] - after[g];
    std::copy_n(tried.begin() + static_cast<std::ptrdiff_t>(g * entries), entries,
                tables.begin() + static_cast<std::ptrdiff_t>(g * entries));
  }
  return gain;
}

}  // namespace pome
