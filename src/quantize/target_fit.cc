#include "quantize/target_fit.h"

#include <algorithm>

#include "tensor/half.h"

namespace pome {

namespace {

// Of levels whose scale fit_scale_exact() finds.
std::optional<CodeRange> range_of(const BlockRule& rule, const Levels& levels) {
  constexpr size_t kMost = 32;
  if (rule.integers() || rule.offset || rule.power || !levels.integers) return std::nullopt;
  if (levels.values.size() > kMost) return std::nullopt;
  return CodeRange{static_cast<int>(levels.values.front()), static_cast<int>(levels.values.back()),
                   levels.values.front() != -levels.values.back()};
}

}  // namespace

TargetFit::TargetFit(const BlockRule& rule, const Levels& levels, std::span<BlockScales> blocks,
                     std::span<RowGrid> grids)
    : rule_(rule), levels_(levels), blocks_(blocks), grids_(grids) {}

bool TargetFit::can_fit(const BlockRule& rule, const Levels& levels) {
  return rule.integers() || range_of(rule, levels);
}

double TargetFit::error(float scale, float offset, std::span<const float> targets,
                        std::span<const float> weights) const {
  constexpr size_t kLanes = 8;
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  float lanes[kLanes] = {};
  const auto add = [&](size_t i, size_t lane, float level) {
    const float left = targets[i] - (scale * level + offset);
    lanes[lane] += weights[i] * left * left;
  };
  size_t i = 0;
  if (levels_.integers) {  // nearest() in a form that compilers make vectors of
    constexpr float kRounder = 12582912.0f;
    const float low = levels_.values.front(), high = levels_.values.back();
    for (; i + kLanes <= targets.size(); i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane) {
        float level = (targets[i + lane] - offset) * inverse;
        level = level < low ? low : level;
        level = level > high ? high : level;
        add(i + lane, lane, (level + kRounder) - kRounder);
      }
  }
  for (; i < targets.size(); ++i)
    add(i, i % kLanes, levels_.values[levels_.nearest((targets[i] - offset) * inverse)]);
  double sum = 0;
  for (const float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

void TargetFit::move_integers(BlockScales* block, size_t sub, std::span<const float> targets,
                              std::span<const float> weights) const {
  constexpr int kMoves = 2;  // more find hardly anything
  const float d = f16_to_f32(block->d), dmin = f16_to_f32(block->dmin);
  const auto error_of = [&](int scale, int min) {
    return error(d * static_cast<float>(scale), -(dmin * static_cast<float>(min)), targets,
                 weights);
  };
  int scale = block->scales[sub], min = block->mins[sub];
  double best = error_of(scale, min);
  for (int move = 0; move < kMoves; ++move) {
    const int from = scale, from_min = min;
    for (int k = std::max(from - 1, rule_.low); k <= std::min(from + 1, rule_.high); ++k)
      for (int m = std::max(from_min - 1, 0); m <= std::min(from_min + 1, rule_.most_min); ++m) {
        if (k == from && m == from_min) continue;
        const double now = error_of(k, m);
        if (!(now < best)) continue;
        best = now;
        scale = k;
        min = m;
      }
    if (scale == from && min == from_min) break;
  }
  block->scales[sub] = static_cast<int16_t>(scale);
  block->mins[sub] = static_cast<int16_t>(min);
}

void TargetFit::fit(size_t row, size_t sub, std::span<const float> targets,
                    std::span<const float> weights) {
  const auto subs = static_cast<size_t>(rule_.columns / rule_.sub);
  const size_t index = sub / subs;
  BlockScales& block = blocks_[row * (blocks_.size() / grids_.size()) + index];
  if (rule_.integers())
    move_integers(&block, sub % subs, targets, weights);
  else if (const auto range = range_of(rule_, levels_))
    block.d = fit_scale_exact(targets, weights, *range, &scratch_).scale;
  grids_[row].set(index, rule_, block);
}

}  // namespace pome
