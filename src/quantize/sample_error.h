// What rounding costs a weight, from a sample of its rows.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "quantize/feedback.h"
#include "quantize/statistics.h"

namespace pome {

struct SampleError {
  int64_t rows = 0;  // that were read
  // Sums over them: squared errors and values, and both as the output of the product sees them,
  // e H e' and w H w', where the activations are known.
  double error = 0, energy = 0, output_error = 0, output_energy = 0;
  // Weights further than a step beyond the values of their grid, where that was asked for.
  int64_t saturated = 0, values = 0;

  bool weighted() const { return output_energy > 0; }
  // Of the output where it is known, else of the weights; 0 where there is nothing.
  double relative() const {
    return weighted() ? output_error / output_energy : energy > 0 ? error / energy : 0;
  }
  double signal_to_noise_db() const;  // of the weights; infinite where nothing was rounded
  double saturation() const {
    return values > 0 ? static_cast<double>(saturated) / static_cast<double>(values) : 0;
  }
  SampleError& operator+=(const SampleError& other);
};
// Of `stored` against `source` * factor, in about `rows` rows spread over the matrix, whole groups
// of rows where those share a table. `feedback`: one for all rows or one for each of stacked
// experts, null where nothing is known; or empty. `saturation`: counts it, which takes longer.
Result<SampleError> sample_error(const ConstantData& source, float factor,
                                 const ConstantData& stored, int64_t rows,
                                 std::span<const FeedbackPtr> feedback, bool saturation);

// Factors of what weights read: those in use are few, and they are large.
class Factors {
 public:
  explicit Factors(const ActivationStatistics& statistics) : statistics_(statistics) {}
  // One, or one for each of stacked experts; empty where nothing is known. `run`: as Feedback takes
  // columns. kBadInput where moments are not finite.
  Result<std::vector<FeedbackPtr>> of(const Constant& constant, int64_t run = 1);

 private:
  const ActivationStatistics& statistics_;
  std::map<std::pair<const Moments*, int64_t>, FeedbackPtr> made_;  // by run
  int64_t held_ = 0;                                                // elements
};

}  // namespace pome
