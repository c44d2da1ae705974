// Grids of eight bits for activations: which numbers of a value int8 shall tell apart.
//
// A value is known by a histogram over its binary16 values (what a Core ML package computes in), so
// every range can be judged exactly and without the activations themselves. One grid serves a whole
// value: codes are scale * (code - zero_point).
//
// Where the range must be found:
//   min-max      nothing is clipped
//   percentile   99.99 % of the magnitudes are inside
//   entropy      the clipping under which the distribution of what is left tells least apart from
//                the original one: least Kullback-Leibler divergence between 2048 bins of the one
//                and 128 levels of the other
//
// Deterministic. Thread safety: one histogram per thread; the rest is pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "encoding/activation_grid.h"

namespace pome {

enum class RangeMethod : uint8_t { kMinMax, kPercentile, kEntropy };
std::string_view to_string(RangeMethod method);  // "minmax", "percentile", "entropy"
std::optional<RangeMethod> parse_range_method(std::string_view name);

// How often each binary16 value occurred.
class ActivationHistogram {
 public:
  ActivationHistogram();
  // What binary16 cannot hold counts as its largest value; what is no number is left out, counted.
  void add(std::span<const float> values);
  uint64_t count() const { return count_; }
  uint64_t not_numbers() const { return not_numbers_; }
  // Occurrences of value_of(key), keys ascending with their values.
  std::span<const uint64_t> counts() const { return counts_; }
  static float value_of(size_t key);

 private:
  std::vector<uint64_t> counts_;
  std::vector<uint16_t> scratch_;
  uint64_t count_ = 0, not_numbers_ = 0;
};

float value_on(const ActivationGrid& grid, float x);  // x as its code says it

// The grid that a method asks for; affine where that makes steps smaller by a quarter at least.
// Nothing where there is nothing to tell apart, or where binary16 cannot hold the scale.
std::optional<ActivationGrid> fit_grid(const ActivationHistogram& histogram, RangeMethod method);

// What a grid costs: mean squared error over mean square. `typical` looks at the smaller 99.9 % of
// the magnitudes alone, which a few large ones can leave without a step of their own.
struct GridError {
  double all = 0, typical = 0;
};
GridError error_of(const ActivationHistogram& histogram, const ActivationGrid& grid);
// Beyond this in either respect a value stays as it is: 16 dB.
inline constexpr double kMostGridError = 0.025;

// What becomes of a value: the wished method's grid where it is good enough, else the best other
// method's that is, else none.
struct ActivationChoice {
  std::optional<ActivationGrid> grid;
  RangeMethod method = RangeMethod::kMinMax;  // of the grid; of the least error where there is none
  GridError error;
  std::string reason;  // empty, or why it is not what was wished for
};
ActivationChoice choose_grid(const ActivationHistogram& histogram, RangeMethod wished);

}  // namespace pome
