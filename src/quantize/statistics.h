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
  std::vector<float> second;  // [K, K]: mean of x x', symmetric
  // [K]: mean of x, or empty where it was not noted. With a bias that makes up for the mean
  // (output_shift), `second` is better the covariance.
  std::vector<float> mean = {};
};
using MomentsPtr = std::shared_ptr<const Moments>;

// By name of the constant: one, or one per expert of a stacked weight. Weights that read the same
// value share them. Null where nothing was counted.
using ActivationStatistics = std::map<std::string, std::vector<MomentsPtr>>;

}  // namespace pome
