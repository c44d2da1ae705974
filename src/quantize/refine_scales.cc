#include "quantize/refine_scales.h"

#include <algorithm>
#include <cmath>

#include "quantize/palette.h"
#include "tensor/half.h"

namespace pome {

namespace {

constexpr size_t kRows = 64;  // whose products lie in the cache together

// The sum in fixed lanes.
double dot(const float* a, const float* b, int64_t count) {
  constexpr int64_t kLanes = 8;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) lanes[k] += a[i + k] * b[i + k];
  for (int64_t k = 0; i < count; ++i, ++k) lanes[k] += a[i] * b[i];
  double sum = 0;
  for (const float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}
double sum_of(const float* a, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]);
  return sum;
}
void add(double by, const float* from, int64_t count, float* to) {
  const auto factor = static_cast<float>(by);
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

// How e H e' changes when the error loses p times one direction and r times another.
struct Parabola {
  double slope_p = 0, slope_r = 0;                  // (e H) x'
  double curve_p = 0, curve_r = 0, curve_both = 0;  // x H x'

  double change(double p, double r) const {
    return p * (p * curve_p - 2 * slope_p) + r * (r * curve_r - 2 * slope_r) +
           2 * p * r * curve_both;
  }
  // The lowest point; in p alone where both directions are nearly one.
  double best_p() const {
    const double determinant = curve_p * curve_r - curve_both * curve_both;
    if (determinant > 1e-6 * curve_p * curve_r)
      return (slope_p * curve_r - slope_r * curve_both) / determinant;
    return curve_p > 0 ? slope_p / curve_p : 0;
  }
  double best_r(double p) const { return curve_r > 0 ? (slope_r - p * curve_both) / curve_r : 0; }
};

// Binary16 next to a value, and the two beside it; fewer at the ends.
struct Halves {
  uint16_t bits[3];
  int count = 0;

  explicit Halves(double value) {
    const double bounded = std::clamp(value, -65504.0, 65504.0);
    const int key = key_of_f16(f32_to_f16(static_cast<float>(bounded)));
    for (const int next : {key, key - 1, key + 1}) {
      const uint16_t half = f16_of_key(static_cast<uint16_t>(next));
      // Neither infinite nor a zero with a sign.
      if ((half & 0x7C00) != 0x7C00 && half != 0x8000) bits[count++] = half;
    }
  }
};

struct Integers {
  int scale, min;
};

// The integers of a sub-block where e H e' is lowest: of the scales next to the lowest point and to
// the one that there is, each with its best minimum. Gives the change of e H e', at most 0.
double choose(const BlockRule& rule, const Parabola& along, double d, double dmin, Integers* at) {
  const Integers from = *at;
  const double wished =
      std::clamp(from.scale + along.best_p() / d, 1.0 * rule.low, 1.0 * rule.high);
  double best = 0;
  for (const double scale : {std::floor(wished), std::ceil(wished), from.scale - 1.0,
                             1.0 * from.scale, from.scale + 1.0}) {
    if (scale < rule.low || scale > rule.high) continue;
    const double p = d * (scale - from.scale);
    double min = from.min;
    if (along.curve_r > 0)
      min = std::clamp(std::nearbyint(min - along.best_r(p) / dmin), 0.0, 1.0 * rule.most_min);
    const double change = along.change(p, dmin * (from.min - min));
    if (!(change < best)) continue;
    best = change;
    *at = {static_cast<int>(scale), static_cast<int>(min)};
  }
  return best;
}

double value_of(uint16_t half) { return static_cast<double>(f16_to_f32(half)); }

}  // namespace

// Some rows on their way.
struct ScaleRefiner::Rows {
  int64_t columns = 0, first = 0, count = 0;  // of whole rows, and those that are refined
  std::span<const uint8_t> levels;
  std::span<BlockScales> blocks;
  std::span<RowGrid> grids;
  std::span<float> gradients;
  double change = 0;

  size_t size() const { return grids.size(); }
  BlockScales& block(size_t row, size_t index) const {
    return blocks[row * (blocks.size() / grids.size()) + index];
  }
};

// Sub-block `sub` of the block that begins with column `at`: its integers, and its part of what d
// and dmin move.
void ScaleRefiner::step_integers(int64_t at, int64_t sub, Rows* rows) {
  const int64_t width = rule_.sub, begin = at + sub * width, count = rows->count;
  const auto index = static_cast<size_t>(at / rule_.columns), j = static_cast<size_t>(sub);
  const bool offsets = rule_.offset || rule_.most_min > 0;
  values_.resize(rows->size() * static_cast<size_t>(width));
  for (size_t row = 0; row < rows->size(); ++row)
    for (int64_t i = 0; i < width; ++i)
      values_[row * static_cast<size_t>(width) + static_cast<size_t>(i)] =
          levels_->values[rows->levels[row * static_cast<size_t>(rows->columns) +
                                       static_cast<size_t>(begin + i)]];
  form_.products(values_, begin, width, rows->first, count, &by_scale_);
  if (offsets) {
    const std::vector<float> ones(static_cast<size_t>(width), 1.0f);
    form_.products(ones, begin, width, rows->first, count, &by_offset_);
  }
  const int64_t inside = begin - rows->first;
  const double curve_r = offsets ? sum_of(by_offset_.data() + inside, width) : 0;
  for (size_t row = 0; row < rows->size(); ++row) {
    BlockScales& block = rows->block(row, index);
    float* const gradient = rows->gradients.data() + static_cast<int64_t>(row) * count;
    const float* const by_scale = by_scale_.data() + static_cast<int64_t>(row) * count;
    const float* const value = values_.data() + static_cast<int64_t>(row) * width;
    const double d = value_of(block.d), dmin = value_of(block.dmin);
    if (rule_.integers() && d != 0) {
      Parabola along;
      along.slope_p = dot(gradient + inside, value, width);
      along.curve_p = dot(by_scale + inside, value, width);
      if (rule_.most_min > 0 && dmin != 0) {
        along.slope_r = sum_of(gradient + inside, width);
        along.curve_r = curve_r;
        along.curve_both = sum_of(by_scale + inside, width);
      }
      const Integers from{block.scales[j], block.mins[j]};
      Integers to = from;
      const double change = choose(rule_, along, d, dmin, &to);
      if (change < 0) {
        rows->change += change;
        add(d * (from.scale - to.scale), by_scale, count, gradient);
        if (to.min != from.min) add(dmin * (to.min - from.min), by_offset_.data(), count, gradient);
        block.scales[j] = static_cast<int16_t>(to.scale);
        block.mins[j] = static_cast<int16_t>(to.min);
      }
    }
    add(rule_.integers() ? block.scales[j] : 1, by_scale, count,
        by_d_.data() + static_cast<int64_t>(row) * count);
    if (offsets)
      add(rule_.offset ? 1 : -block.mins[j], by_offset_.data(), count,
          by_dmin_.data() + static_cast<int64_t>(row) * count);
  }
}

// d and dmin of the block that begins with column `at`.
void ScaleRefiner::step_halves(int64_t at, Rows* rows) {
  const int64_t count = rows->count, inside = at - rows->first, width = rule_.columns;
  const auto index = static_cast<size_t>(at / width);
  const bool offsets = rule_.offset || rule_.most_min > 0;
  std::vector<float> p(static_cast<size_t>(width)), r(p);
  for (size_t row = 0; row < rows->size(); ++row) {
    BlockScales& block = rows->block(row, index);
    const uint8_t* const level =
        rows->levels.data() + static_cast<int64_t>(row) * rows->columns + at;
    float* const gradient = rows->gradients.data() + static_cast<int64_t>(row) * count;
    const float* const by_d = by_d_.data() + static_cast<int64_t>(row) * count;
    const float* const by_dmin = by_dmin_.data() + static_cast<int64_t>(row) * count;
    for (int64_t i = 0; i < width; ++i) {
      const auto to = static_cast<size_t>(i), j = static_cast<size_t>(i / rule_.sub);
      p[to] = levels_->values[level[i]] *
              (rule_.integers() ? static_cast<float>(block.scales[j]) : 1.0f);
      r[to] = rule_.offset ? 1.0f : -static_cast<float>(block.mins[j]);
    }
    Parabola along;
    along.slope_p = dot(gradient + inside, p.data(), width);
    along.curve_p = dot(by_d + inside, p.data(), width);
    if (offsets) {
      along.slope_r = dot(gradient + inside, r.data(), width);
      along.curve_r = dot(by_dmin + inside, r.data(), width);
      along.curve_both = dot(by_d + inside, r.data(), width);
    }
    const double d = value_of(block.d), dmin = value_of(block.dmin);
    uint16_t best_d = block.d, best_dmin = block.dmin;
    double best = 0;
    const auto attempt = [&](uint16_t half_d, uint16_t half_dmin) {
      // Pairs have scales and minima that are not negative.
      if (rule_.most_min > 0 && (value_of(half_d) < 0 || value_of(half_dmin) < 0)) return;
      const double change = along.change(value_of(half_d) - d, value_of(half_dmin) - dmin);
      if (!(change < best)) return;
      best = change;
      best_d = half_d;
      best_dmin = half_dmin;
    };
    const Halves halves(d + along.best_p());
    for (int i = 0; i < halves.count; ++i) {
      attempt(halves.bits[i], block.dmin);
      if (!(along.curve_r > 0)) continue;
      const Halves others(dmin + along.best_r(value_of(halves.bits[i]) - d));
      if (others.count > 0) attempt(halves.bits[i], others.bits[0]);
    }
    if (best < 0) {
      rows->change += best;
      add(d - value_of(best_d), by_d, count, gradient);
      if (offsets) add(dmin - value_of(best_dmin), by_dmin, count, gradient);
      block.d = best_d;
      block.dmin = best_dmin;
    }
    rows->grids[row].set(index, rule_, block);
  }
}

double ScaleRefiner::refine(int64_t first, int64_t count, std::span<const uint8_t> levels,
                            std::span<BlockScales> blocks, std::span<RowGrid> grids,
                            std::span<float> gradients) {
  const int64_t columns = form_.columns();
  const auto width = static_cast<size_t>(columns);
  const size_t of_row = width / static_cast<size_t>(rule_.columns);
  double change = 0;
  for (size_t row = 0; row < grids.size(); row += kRows) {
    const size_t some = std::min(kRows, grids.size() - row),
                 products = some * static_cast<size_t>(count);
    Rows rows{columns,
              first,
              count,
              levels.subspan(row * width, some * width),
              blocks.subspan(row * of_row, some * of_row),
              grids.subspan(row, some),
              gradients.subspan(row * static_cast<size_t>(count), products)};
    for (int64_t at = first; at < first + count; at += rule_.columns) {
      by_d_.assign(products, 0.0f);
      by_dmin_.assign(products, 0.0f);
      for (int64_t sub = 0; sub < rule_.columns / rule_.sub; ++sub) step_integers(at, sub, &rows);
      step_halves(at, &rows);
    }
    change += rows.change;
  }
  return -change;
}

}  // namespace pome
