#include "quantize/activation_range.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quantize/palette.h"
#include "tensor/half.h"

namespace pome {

namespace {

constexpr size_t kKeys = 65536;
constexpr size_t kZero = 0x8000;  // key of zero
constexpr size_t kLargest = kZero + 0x7BFF, kSmallest = kZero - 0x7BFF;
constexpr float kSmallestScale = 6.103515625e-05f;  // smallest normal binary16
constexpr double kInside = 0.9999;                  // of magnitudes, by percentile
constexpr double kTypical = 0.999;
constexpr double kAffineGain = 0.75;

// Occurrences by magnitude: element m for the values with the bits m and m | 0x8000.
std::vector<uint64_t> magnitudes(const ActivationHistogram& histogram) {
  std::vector<uint64_t> out(0x7C00);
  for (size_t m = 0; m < out.size(); ++m)
    out[m] = histogram.counts()[kZero + m] + (m > 0 ? histogram.counts()[kZero - m] : 0);
  return out;
}
float magnitude(size_t m) { return f16_to_f32(static_cast<uint16_t>(m)); }

// The smallest magnitude with at least this share of all values at or below it.
size_t quantile(std::span<const uint64_t> counts, double share) {
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  const double wanted = share * static_cast<double>(total);
  uint64_t below = 0;
  for (size_t m = 0; m < counts.size(); ++m) {
    below += counts[m];
    if (below > 0 && static_cast<double>(below) >= wanted) return m;
  }
  return counts.size() - 1;
}

// Divergence between magnitudes clipped at `limit`, in 2048 bins, and the same told by 128 levels:
// what a level holds is spread over those of its bins that hold anything.
double divergence(std::span<const uint64_t> counts, double limit) {
  constexpr size_t kPerLevel = 16, kBins = 2048;
  std::array<double, kBins> clipped{}, kept{};
  for (size_t m = 0; m < counts.size(); ++m) {
    if (counts[m] == 0) continue;
    const double at = static_cast<double>(magnitude(m)) / limit * kBins;
    const size_t bin = at >= kBins ? kBins - 1 : static_cast<size_t>(at);
    const auto count = static_cast<double>(counts[m]);
    clipped[bin] += count;
    if (at <= kBins) kept[bin] += count;
  }
  double total = 0, total_kept = 0, out = 0;
  for (size_t i = 0; i < kBins; ++i) total += clipped[i], total_kept += kept[i];
  if (total_kept == 0) return std::numeric_limits<double>::infinity();
  for (size_t level = 0; level < kBins; level += kPerLevel) {
    double mass = 0, used = 0;
    for (size_t i = level; i < level + kPerLevel; ++i) {
      mass += kept[i];
      used += clipped[i] > 0 ? 1 : 0;
    }
    if (used == 0) continue;
    // A level that lost all it had must stay comparable: a millionth of one value.
    const double spread = std::max(mass / used, 1e-6) / total_kept;
    for (size_t i = level; i < level + kPerLevel; ++i)
      if (clipped[i] > 0) out += clipped[i] / total * std::log(clipped[i] / total / spread);
  }
  return out;
}

size_t limit_by_entropy(std::span<const uint64_t> counts, size_t largest) {
  // Eighths of octaves, down to where a fiftieth of all values would be clipped.
  const double end = std::max<double>(magnitude(quantile(counts, 0.98)), magnitude(1));
  size_t best = largest;
  double least = std::numeric_limits<double>::infinity();
  for (double limit = magnitude(largest); limit >= end; limit *= 0.917004043204671) {
    const double cost = divergence(counts, limit);
    if (cost < least) {
      least = cost;
      best = f32_to_f16(static_cast<float>(limit));
    }
  }
  return best;
}

std::optional<ActivationGrid> grid_of(const ActivationHistogram& histogram, size_t limit) {
  const std::span<const uint64_t> counts = histogram.counts();
  size_t low = kZero - limit, high = kZero + limit;
  while (low < kZero && counts[low] == 0) ++low;
  while (high > kZero && counts[high] == 0) --high;
  const double least = static_cast<double>(ActivationHistogram::value_of(low)),
               most = static_cast<double>(ActivationHistogram::value_of(high));
  const double around_zero = std::max(-least, most) / 127, affine = (most - least) / 255;
  ActivationGrid grid;
  grid.is_affine = affine <= kAffineGain * around_zero;
  grid.scale = round_to_f16(static_cast<float>(grid.is_affine ? affine : around_zero));
  if (!(grid.scale >= kSmallestScale) || !std::isfinite(grid.scale)) return std::nullopt;
  if (grid.is_affine)
    grid.zero_point = static_cast<int32_t>(
        std::clamp(std::nearbyint(-least / static_cast<double>(grid.scale)), 0.0, 255.0));
  return grid;
}

bool is_good(const GridError& error) {
  return error.all <= kMostGridError && error.typical <= kMostGridError;
}
std::string text(const GridError& error) {
  const auto decibels = [](double e) {
    return std::to_string(static_cast<int>(std::lround(-10 * std::log10(std::max(e, 1e-20)))));
  };
  return decibels(error.all) + " dB, typical values " + decibels(error.typical) + " dB";
}

}  // namespace

std::string_view to_string(RangeMethod method) {
  switch (method) {
    case RangeMethod::kMinMax:
      return "minmax";
    case RangeMethod::kPercentile:
      return "percentile";
    case RangeMethod::kEntropy:
      return "entropy";
  }
  return "";
}

std::optional<RangeMethod> parse_range_method(std::string_view name) {
  for (const RangeMethod method :
       {RangeMethod::kMinMax, RangeMethod::kPercentile, RangeMethod::kEntropy})
    if (to_string(method) == name) return method;
  return std::nullopt;
}

ActivationHistogram::ActivationHistogram() : counts_(kKeys) {}

float ActivationHistogram::value_of(size_t key) {
  return f16_to_f32(f16_of_key(static_cast<uint16_t>(key)));
}

void ActivationHistogram::add(std::span<const float> values) {
  scratch_.resize(values.size());
  f32_to_f16(values, scratch_);
  keys_of_f16(scratch_);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) {
      ++not_numbers_;
      continue;
    }
    ++counts_[std::clamp<size_t>(scratch_[i], kSmallest, kLargest)];
    ++count_;
  }
}

float value_on(const ActivationGrid& grid, float x) {
  const float low = grid.is_affine ? 0.0f : -128.0f, high = grid.is_affine ? 255.0f : 127.0f;
  const auto zero = static_cast<float>(grid.zero_point);
  return grid.scale * (std::clamp(std::nearbyint(x / grid.scale) + zero, low, high) - zero);
}

std::optional<ActivationGrid> fit_grid(const ActivationHistogram& histogram, RangeMethod method) {
  const std::vector<uint64_t> counts = magnitudes(histogram);
  size_t largest = counts.size() - 1;
  while (largest > 0 && counts[largest] == 0) --largest;
  if (largest == 0) return std::nullopt;
  switch (method) {
    case RangeMethod::kMinMax:
      return grid_of(histogram, largest);
    case RangeMethod::kPercentile:
      return grid_of(histogram, std::max<size_t>(1, quantile(counts, kInside)));
    case RangeMethod::kEntropy:
      return grid_of(histogram, std::max<size_t>(1, limit_by_entropy(counts, largest)));
  }
  return std::nullopt;
}

GridError error_of(const ActivationHistogram& histogram, const ActivationGrid& grid) {
  const size_t typical = quantile(magnitudes(histogram), kTypical);
  double error[2] = {}, square[2] = {};
  for (size_t key = kSmallest; key <= kLargest; ++key) {
    const uint64_t count = histogram.counts()[key];
    if (count == 0) continue;
    const float x = ActivationHistogram::value_of(key);
    const double off = static_cast<double>(x) - static_cast<double>(value_on(grid, x));
    const bool is_typical = key + typical >= kZero && key <= kZero + typical;
    for (const size_t i : {size_t{0}, size_t{1}}) {
      if (i == 1 && !is_typical) continue;
      error[i] += static_cast<double>(count) * off * off;
      square[i] += static_cast<double>(count) * static_cast<double>(x) * static_cast<double>(x);
    }
  }
  return {square[0] > 0 ? error[0] / square[0] : 0, square[1] > 0 ? error[1] / square[1] : 0};
}

ActivationChoice choose_grid(const ActivationHistogram& histogram, RangeMethod wished) {
  ActivationChoice best;
  best.method = wished;
  if (histogram.count() == 0 || histogram.not_numbers() > 0) {
    best.reason = histogram.count() == 0 ? "no token of the calibration text meets it"
                                         : "it holds values that are no numbers";
    return best;
  }
  bool any = false;
  std::string first;
  for (const RangeMethod method :
       {wished, RangeMethod::kMinMax, RangeMethod::kPercentile, RangeMethod::kEntropy}) {
    const auto grid = fit_grid(histogram, method);
    if (!grid) continue;
    const GridError error = error_of(histogram, *grid);
    if (method == wished && is_good(error)) return {grid, method, error, {}};
    if (method == wished && first.empty())
      first = std::string(to_string(method)) + ": " + text(error);
    const auto worst = [](const GridError& e) { return std::max(e.all, e.typical); };
    if (any && worst(error) >= worst(best.error)) continue;
    any = true;
    best.method = method;
    best.error = error;
    best.grid = grid;
  }
  best.reason = any ? first : "binary16 cannot hold its scale";
  if (any && !is_good(best.error)) {
    best.grid.reset();
    best.reason = "too wide a range for eight bits (best by " +
                  std::string(to_string(best.method)) + ": " + text(best.error) + ")";
  }
  return best;
}

}  // namespace pome
