// Steps over rows and elements that have kernels of their own: norm, activation, gated activation,
// softmax.
#include <algorithm>
#include <cmath>

#include "engine/activation.h"
#include "engine/step.h"
#include "kernels/attention/attention.h"

namespace pome {

kernels::MapKernel choose_activation(Isa isa, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return kernels::choose_map(isa, kernels::MapOp::kSilu);
    case Activation::kGelu:
      return kernels::choose_map(isa, kernels::MapOp::kGelu);
    case Activation::kGeluTanh:
      return kernels::choose_map(isa, kernels::MapOp::kGeluTanh);
    case Activation::kRelu:
      break;
  }
  return kernels::choose_map(isa, kernels::MapOp::kRelu);
}

namespace {

constexpr int64_t kElements = 1 << 13;  // per item of parallel work

class RmsNormStep final : public Step {
 public:
  RmsNormStep(Isa isa, const Node& node)
      : x_(node.operands[0]),
        gain_(node.operands[1]),
        y_(node.result),
        epsilon_(std::get<RmsNormOp>(node.op).epsilon),
        norm_(kernels::choose_norm(isa)) {}
  std::string describe() const override { return "rms_norm"; }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &gain = frame.view(gain_);
    const int64_t d = x.dim(-1), rows = d ? x.count() / d : 0;
    const int64_t step = std::max<int64_t>(1, kElements / std::max<int64_t>(d, 1));
    frame.parallel((rows + step - 1) / step, [&](int64_t item, float*) {
      const int64_t row = item * step;
      norm_({x.as<const float>() + row * d, gain.as<const float>(),
             frame.view(y_).as<float>() + row * d, std::min(step, rows - row), d, epsilon_});
    });
    return {};
  }

 private:
  ValueId x_, gain_, y_;
  double epsilon_;
  kernels::NormKernel norm_;
};

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

class LayerNormStep final : public Step {
 public:
  explicit LayerNormStep(const Node& node)
      : x_(node.operands[0]),
        gain_(node.operands[1]),
        bias_(node.operands.size() > 2 ? node.operands[2] : kNoValue),
        y_(node.result),
        epsilon_(std::get<LayerNormOp>(node.op).epsilon) {}
  std::string describe() const override { return "layer_norm"; }
  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    const int64_t d = x.dim(-1), rows = d ? x.count() / d : 0;
    const float* gain = frame.view(gain_).as<const float>();
    const float* bias = bias_ == kNoValue ? nullptr : frame.view(bias_).as<const float>();
    const int64_t step = std::max<int64_t>(1, kElements / std::max<int64_t>(d, 1));
    frame.parallel((rows + step - 1) / step, [&](int64_t item, float*) {
      const int64_t last = std::min(rows, (item + 1) * step);
      for (int64_t row = item * step; row < last; ++row)
        normalise(x.as<const float>() + row * d, gain, bias, frame.view(y_).as<float>() + row * d,
                  d);
    });
    return {};
  }

 private:
  void normalise(const float* x, const float* gain, const float* bias, float* y, int64_t d) const {
    const double count = static_cast<double>(d), mean = lane_sum<1>(x, d, 0) / count;
    const double variance = lane_sum<2>(x, d, mean) / count;
    const auto centre = static_cast<float>(mean);
    const auto factor = static_cast<float>(1 / std::sqrt(variance + epsilon_));
    for (int64_t i = 0; i < d; ++i) y[i] = (x[i] - centre) * factor * gain[i];
    if (!bias) return;
    for (int64_t i = 0; i < d; ++i) y[i] += bias[i];
  }

  ValueId x_, gain_, bias_, y_;
  double epsilon_;
};

// activation(x), or activation(gate) * up
class ActivationStep final : public Step {
 public:
  ActivationStep(Isa isa, ValueId x, ValueId up, ValueId y, Activation activation)
      : x_(x),
        up_(up),
        y_(y),
        map_(choose_activation(isa, activation)),
        multiply_(kernels::choose_zip(isa, kernels::ZipOp::kMul)) {}
  std::string describe() const override { return up_ == kNoValue ? "activation" : "swiglu"; }
  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    const int64_t count = x.count();
    frame.parallel((count + kElements - 1) / kElements, [&](int64_t item, float*) {
      const int64_t at = item * kElements, n = std::min(kElements, count - at);
      float* y = frame.view(y_).as<float>() + at;
      map_(x.as<const float>() + at, y, n);
      if (up_ != kNoValue) multiply_(y, frame.view(up_).as<const float>() + at, y, n);
    });
    return {};
  }

 private:
  ValueId x_, up_, y_;
  kernels::MapKernel map_;
  kernels::ZipKernel multiply_;
};

class SoftmaxStep final : public Step {
 public:
  SoftmaxStep(Isa isa, const Node& node)
      : x_(node.operands[0]),
        y_(node.result),
        softmax_(kernels::choose_attention(isa, true).softmax) {}
  std::string describe() const override { return "softmax"; }
  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    const int64_t n = x.dim(-1), rows = n ? x.count() / n : 0;
    for (int64_t row = 0; row < rows; ++row) {
      float* y = frame.view(y_).as<float>() + row * n;
      std::copy_n(x.as<const float>() + row * n, n, y);
      float largest = 0;
      const float factor = 1.0f / softmax_({y, n, 1.0f, 0.0f, &largest});
      for (int64_t i = 0; i < n; ++i) y[i] *= factor;
    }
    return {};
  }

 private:
  ValueId x_, y_;
  kernels::SoftmaxKernel softmax_;
};

}  // namespace

StepPtr make_rms_norm(Isa isa, const Node& node) {
  return std::make_unique<RmsNormStep>(isa, node);
}
StepPtr make_layer_norm(const Node& node) { return std::make_unique<LayerNormStep>(node); }
StepPtr make_activation(Isa isa, const Node& node) {
  return std::make_unique<ActivationStep>(isa, node.operands[0], kNoValue, node.result,
                                          std::get<ActivationOp>(node.op).activation);
}
StepPtr make_swiglu(Isa isa, const Node& node) {
  return std::make_unique<ActivationStep>(isa, node.operands[0], node.operands[1], node.result,
                                          std::get<SwigluOp>(node.op).activation);
}
StepPtr make_softmax(Isa isa, const Node& node) { return std::make_unique<SoftmaxStep>(isa, node); }

}  // namespace pome
