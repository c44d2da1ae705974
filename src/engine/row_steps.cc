// Steps over rows and elements that have kernels of their own: norm, activation, gated activation,
// softmax.
#include <algorithm>

#include "engine/activation.h"
#include "engine/row_norm.h"
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

class NormStep final : public Step {
 public:
  NormStep(Isa isa, const Node& node) : norm_(isa, node), y_(node.result) {}
  std::string describe() const override { return norm_.name(); }
  Status run(const Frame& frame) const override {
    const View& y = frame.view(y_);
    const int64_t d = y.dim(-1), rows = d ? y.count() / d : 0;
    const int64_t step = std::max<int64_t>(1, kElements / std::max<int64_t>(d, 1));
    frame.parallel((rows + step - 1) / step, [&](int64_t item, float*) {
      const int64_t row = item * step;
      norm_.run(frame, row, std::min(step, rows - row), y.as<float>() + row * d);
    });
    return {};
  }

 private:
  RowNorm norm_;
  ValueId y_;
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

StepPtr make_norm(Isa isa, const Node& node) { return std::make_unique<NormStep>(isa, node); }
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
