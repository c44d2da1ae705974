#include "quantize/refine.h"

#include <algorithm>
#include <vector>

namespace pome {

namespace {

constexpr int64_t kColumns = 256;  // columns whose gradients are made together

std::vector<float> errors_of(std::span<const float> values, std::span<const RowGrid> grids,
                             std::span<const uint8_t> levels) {
  std::vector<float> out(values.begin(), values.end());
  const size_t width = grids.empty() ? 0 : values.size() / grids.size();
  for (size_t row = 0, at = 0; row < grids.size(); ++row)
    for (size_t j = 0; j < width; ++j, ++at)
      out[at] -= grids[row].value(grids[row].block_of(static_cast<int64_t>(j)), levels[at]);
  return out;
}

}  // namespace

double refine_levels(const QuadraticForm& form, std::span<const float> values,
                     std::span<const RowGrid> grids, std::span<uint8_t> levels) {
  const int64_t n = form.columns();
  std::vector<float> errors = errors_of(values, grids, levels), gradients;
  double change = 0;
  for (int64_t first = 0; first < n; first += kColumns) {
    const int64_t count = std::min(kColumns, n - first);
    form.gradient(errors, first, count, &gradients);
    for (size_t row = 0; row < grids.size(); ++row) {
      const RowGrid& grid = grids[row];
      const auto at = static_cast<int64_t>(row) * n + first;
      float* const gradient = gradients.data() + static_cast<int64_t>(row) * count;
      float* const error = errors.data() + at;
      uint8_t* const level = levels.data() + at;
      for (int64_t j = 0; j < count; ++j) {
        const size_t block = grid.block_of(first + j);
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
  }
  return -change;
}

}  // namespace pome
