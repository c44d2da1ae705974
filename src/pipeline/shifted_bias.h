// A bias that makes up for the mean error of the product before it.
//
//   b* = b + W mean(x) - V mean(y) + a     x, y: what the weight met, and what the rounded one V
//                                          meets; a: what the product shall give besides, on
//                                          average
//
// What rounding has to make good is then the covariance of y only.
#pragma once

#include <functional>
#include <vector>

#include "base/status.h"
#include "graph/constant.h"

namespace pome {

// The bias, and what has to see every tile of V, encoded as `stored`, before the bias is read.
// `factor`: what W is multiplied by in V. `besides`: a, or nothing.
struct ShiftedBias {
  ConstantDataPtr bias;
  std::function<Status(const EncodedTile&)> see;
};
ShiftedBias shifted_bias(const ConstantDataPtr& bias, const ConstantDataPtr& weight, float factor,
                         const Encoding& stored, std::vector<float> mean_x,
                         std::vector<float> mean_y, std::vector<float> besides = {});

}  // namespace pome
