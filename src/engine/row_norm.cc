#include "engine/row_norm.h"

#include <cmath>

namespace pome {

namespace {

// Sums run in lanes, so that they vectorise and their order is the same on every machine.
constexpr int64_t kLanes = 8;

// sum of (x - shift)^power, power 1 or 2
template <int kPower>
double lane_sum(const float* x, int64_t n, double shift) {
  double lanes[kLanes] = {};
  const auto term = [shift](float value) {
    const double moved = static_cast<double>(value) - shift;
    return kPower == 1 ? moved : moved * moved;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(x[i + lane]);
  for (int64_t lane = 0; i + lane < n; ++lane) lanes[lane] += term(x[i + lane]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

RowNorm::RowNorm(Isa isa, const Node& node)
    : x_(node.operands[0]),
      gain_(node.operands[1]),
      bias_(node.operands.size() > 2 ? node.operands[2] : kNoValue),
      is_layer_norm_(std::holds_alternative<LayerNormOp>(node.op)),
      epsilon_(is_layer_norm_ ? std::get<LayerNormOp>(node.op).epsilon
                              : std::get<RmsNormOp>(node.op).epsilon),
      rms_norm_(kernels::choose_norm(isa)) {}

void RowNorm::run(const Frame& frame, int64_t row, int64_t rows, float* y) const {
  const View& view = frame.view(x_);
  const int64_t d = view.dim(-1);
  const float* x = view.as<const float>() + row * d;
  const float* gain = frame.view(gain_).as<const float>();
  if (!is_layer_norm_) return rms_norm_({x, gain, y, rows, d, epsilon_});
  const float* bias = bias_ == kNoValue ? nullptr : frame.view(bias_).as<const float>();
  for (int64_t r = 0; r < rows; ++r) layer_norm(x + r * d, gain, bias, y + r * d, d);
}

void RowNorm::layer_norm(const float* x, const float* gain, const float* bias, float* y,
                         int64_t d) const {
  const double count = static_cast<double>(d), mean = lane_sum<1>(x, d, 0) / count;
  const double variance = lane_sum<2>(x, d, mean) / count;
  const auto centre = static_cast<float>(mean);
  const auto factor = static_cast<float>(1 / std::sqrt(variance + epsilon_));
  for (int64_t i = 0; i < d; ++i) y[i] = (x[i] - centre) * factor * gain[i];
  if (!bias) return;
  for (int64_t i = 0; i < d; ++i) y[i] += bias[i];
}

}  // namespace pome
