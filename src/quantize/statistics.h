// What calibration knows about the activations x that meet a weight's columns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace pome {

struct Moments {
  int64_t columns = 0, tokens = 0;
  std::vector<float> second =
      {};  // [K, K]: mean of x x', symmetric; empty: only the diagonal is known
  std::vector<float> diagonal = {};  // [K]: of it; may be empty where `second` is not
  std::vector<float> mean = {};      // [K]: of x; may be empty

  // Of x - mean: what is left to make good where a bias takes the mean error.
  Moments centred() const;
};
using MomentsPtr = std::shared_ptr<const Moments>;

// By name of the constant: one, or one per expert of a stacked weight. Weights that read the same
// value share them. Null where nothing was counted.
using ActivationStatistics = std::map<std::string, std::vector<MomentsPtr>>;

}  // namespace pome
