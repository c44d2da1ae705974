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
struct Neighbours {
  uint16_t bits[3];
  int count = 0;

  explicit Neighbours(double value) {
    const double bounded = std::clamp(value, -65504.0, 65504.0);
    const int key = key_of_f16(f32_to_f16(static_cast<float>(bounded)));
    for (const int next : {key, key - 1, key + 1}) {
      const uint16_t half = f16_of_key(static_cast<uint16_t>(next));
      // Neither infinite nor a zero with a sign.
      if ((half & 0x7C00) != 0x7C00 && half != 0x8000) bits[count++] = half;
    }
  }
};

double value_of(uint16_t half) { return static_cast<double>(f16_to_f32(half)); }

struct Integers {
  int scale, min;
};

// The integers of a sub-block where e H e' is lowest: of the scales next to the lowest point and to
// the one that there is, each with its best minimum. Gives the change of e H e', at most 0.
double choose(const BlockRule& rule, Parabola along, double d, double dmin, Integers* at) {
  if (d == 0) return 0;
  if (dmin == 0) along.curve_r = 0;
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

struct Halves {
  uint16_t d, dmin;
};

// The same for d and dmin, or scale and offset.
double choose(const BlockRule& rule, const Parabola& along, Halves* at) {
  const double d = value_of(at->d), dmin = value_of(at->dmin);
  const Halves from = *at;
  double best = 0;
  const auto attempt = [&](uint16_t half_d, uint16_t half_dmin) {
    // Pairs have scales and minima that are not negative.
    if (rule.most_min > 0 && (value_of(half_d) < 0 || value_of(half_dmin) < 0)) return;
    const double change = along.change(value_of(half_d) - d, value_of(half_dmin) - dmin);
    if (!(change < best)) return;
    best = change;
    *at = {half_d, half_dmin};
  };
  const Neighbours next(d + along.best_p());
  for (int i = 0; i < next.count; ++i) {
    attempt(next.bits[i], from.dmin);
    if (!(along.curve_r > 0)) continue;
    const Neighbours other(dmin + along.best_r(value_of(next.bits[i]) - d));
    if (other.count > 0) attempt(next.bits[i], other.bits[0]);
  }
  return best;
}

}  // namespace

// Some rows on their way.
struct ScaleRefiner::Rows {
  int64_t first = 0, count = 0;  // columns that are refined
  std::span<BlockScales> blocks;
  std::span<RowGrid> grids;
  std::span<float> gradients;
  double change = 0;

  int64_t size() const { return static_cast<int64_t>(grids.size()); }
  BlockScales& block(int64_t row, int64_t index) const {
    return blocks[static_cast<size_t>(row * (static_cast<int64_t>(blocks.size()) / size()) +
                                      index)];
  }
  float* gradient(int64_t row, int64_t column) const {
    return gradients.data() + row * count + column - first;
  }
};

// d and dmin of the super-block that begins with column `at`; gradients are true.
void ScaleRefiner::step_super_block(int64_t at, Rows* rows) {
  const int64_t width = rule_.columns, sub = rule_.sub, index = at / width, count = rows->count;
  const int64_t inside = at - rows->first, subs = width / sub;
  scaled_.resize(static_cast<size_t>(rows->size() * width));
  for (int64_t row = 0; row < rows->size(); ++row)
    for (int64_t j = 0; j < subs; ++j) {
      const auto scale = static_cast<float>(rows->block(row, index).scales[j]);
      const float* const from = values_.data() + row * count + inside + j * sub;
      float* const to = scaled_.data() + row * width + j * sub;
      for (int64_t i = 0; i < sub; ++i) to[i] = scale * from[i];
    }
  form_.products({scaled_.data(), width, rows->size()}, at, width, rows->first, count, &by_scale_);
  // Ones in one sub-block each, and x H x' of two of these.
  ones_.assign(has_offsets() ? static_cast<size_t>(subs * width) : 0, 0.0f);
  for (size_t i = 0; i < ones_.size(); i += static_cast<size_t>(width + sub))
    std::fill_n(ones_.begin() + static_cast<std::ptrdiff_t>(i), sub, 1.0f);
  form_.products({ones_.data(), width, static_cast<int64_t>(ones_.size()) / width}, at, width,
                 rows->first, count, &by_offset_);
  std::vector<double> both(ones_.empty() ? 0 : static_cast<size_t>(subs * subs));
  for (size_t i = 0; i < both.size(); ++i)
    both[i] = sum_of(by_offset_.data() + static_cast<int64_t>(i) / subs * count + inside +
                         static_cast<int64_t>(i) % subs * sub,
                     sub);
  for (int64_t row = 0; row < rows->size(); ++row) {
    BlockScales& block = rows->block(row, index);
    const float* const gradient = rows->gradient(row, at);
    const float* const value = scaled_.data() + row * width;
    const float* const by_d = by_scale_.data() + row * count;
    Parabola along;
    along.slope_p = dot(gradient, value, width);
    along.curve_p = dot(by_d + inside, value, width);
    for (int64_t j = 0; has_offsets() && j < subs; ++j) {
      const double min = block.mins[j];
      along.slope_r -= min * sum_of(gradient + j * sub, sub);
      along.curve_both -= min * sum_of(by_d + inside + j * sub, sub);
      for (int64_t k = 0; k < subs; ++k)
        along.curve_r += min * block.mins[k] * both[static_cast<size_t>(j * subs + k)];
    }
    const Halves from{block.d, block.dmin};
    Halves to = from;
    const double change = choose(rule_, along, &to);
    if (!(change < 0)) continue;
    rows->change += change;
    float* const whole = rows->gradient(row, rows->first);
    add(value_of(from.d) - value_of(to.d), by_d, count, whole);
    const double more = value_of(to.dmin) - value_of(from.dmin);  // of what -min stands for
    for (int64_t j = 0; more != 0 && j < subs; ++j)
      add(more * block.mins[j], by_offset_.data() + j * count, count, whole);
    block.d = to.d;
    block.dmin = to.dmin;
  }
}

// Scale and offset of the sub-block, or of the block that has none, that begins with column `at`.
void ScaleRefiner::step_block(int64_t at, Rows* rows) {
  const int64_t width = rule_.sub, index = at / rule_.columns, count = rows->count;
  const auto j = static_cast<size_t>(at % rule_.columns / width);
  const int64_t inside = at - rows->first;
  form_.products({values_.data() + inside, count, rows->size()}, at, width, at, width, &by_scale_);
  ones_.assign(static_cast<size_t>(width), 1.0f);
  form_.products({ones_.data(), width, 1}, at, width, at, width, &by_offset_);
  const double curve_r = has_offsets() ? sum_of(by_offset_.data(), width) : 0;
  asked_.assign(static_cast<size_t>(rows->size() * width), 0.0f);
  if (inside > 0)
    form_.products({moved_.data(), count, rows->size()}, rows->first, inside, at, width, &asked_);
  for (int64_t row = 0; row < rows->size(); ++row) {
    BlockScales& block = rows->block(row, index);
    const double d = value_of(block.d), dmin = value_of(block.dmin);
    const float* const value = values_.data() + row * count + inside;
    float* const gradient = asked_.data() + row * width;
    for (int64_t i = 0; i < width; ++i) gradient[i] = rows->gradient(row, at)[i] - gradient[i];
    Parabola along;
    along.slope_p = dot(gradient, value, width);
    along.curve_p = dot(by_scale_.data() + row * width, value, width);
    if (has_offsets()) {
      along.slope_r = sum_of(gradient, width);
      along.curve_r = curve_r;
      along.curve_both = sum_of(by_scale_.data() + row * width, width);
    }
    double p = 0, r = 0, change = 0;
    if (rule_.integers()) {
      Integers to{block.scales[j], block.mins[j]};
      change = choose(rule_, along, d, dmin, &to);
      p = d * (to.scale - block.scales[j]);
      r = dmin * (block.mins[j] - to.min);
      block.scales[j] = static_cast<int16_t>(to.scale);
      block.mins[j] = static_cast<int16_t>(to.min);
    } else {
      Halves to{block.d, block.dmin};
      change = choose(rule_, along, &to);
      p = value_of(to.d) - d;
      r = value_of(to.dmin) - dmin;
      block.d = to.d;
      block.dmin = to.dmin;
    }
    if (!(change < 0)) continue;
    rows->change += change;
    float* const moved = moved_.data() + row * count + inside;
    const auto scaled = static_cast<float>(p), shifted = static_cast<float>(r);
    for (int64_t i = 0; i < width; ++i) moved[i] = scaled * value[i] + shifted;
  }
}

// Gradients hear of what has moved, and grids of what blocks are now.
void ScaleRefiner::feed(Rows* rows) {
  form_.products({moved_.data(), rows->count, rows->size()}, rows->first, rows->count, rows->first,
                 rows->count, &asked_);
  for (size_t i = 0; i < asked_.size(); ++i) rows->gradients[i] -= asked_[i];
  const int64_t first = rows->first / rule_.columns, count = rows->count / rule_.columns;
  for (int64_t row = 0; row < rows->size(); ++row)
    for (int64_t index = first; index < first + count; ++index)
      rows->grids[static_cast<size_t>(row)].set(static_cast<size_t>(index), rule_,
                                                rows->block(row, index));
}

double ScaleRefiner::refine(int64_t first, int64_t count, std::span<const uint8_t> levels,
                            std::span<BlockScales> blocks, std::span<RowGrid> grids,
                            std::span<float> gradients) {
  const auto width = static_cast<size_t>(form_.columns()), part = static_cast<size_t>(count);
  const size_t of_row = width / static_cast<size_t>(rule_.columns);
  double change = 0;
  for (size_t row = 0; row < grids.size(); row += kRows) {
    const size_t some = std::min(kRows, grids.size() - row);
    Rows rows{first, count, blocks.subspan(row * of_row, some * of_row), grids.subspan(row, some),
              gradients.subspan(row * part, some * part)};
    values_.resize(some * part);
    for (size_t i = 0; i < some; ++i)
      for (size_t j = 0; j < part; ++j)
        values_[i * part + j] =
            levels_->values[levels[(row + i) * width + static_cast<size_t>(first) + j]];
    if (rule_.integers())
      for (int64_t at = first; at < first + count; at += rule_.columns) step_super_block(at, &rows);
    moved_.assign(some * part, 0.0f);
    for (int64_t at = first; at < first + count; at += rule_.sub) step_block(at, &rows);
    feed(&rows);
    change += rows.change;
  }
  return -change;
}

}  // namespace pome
