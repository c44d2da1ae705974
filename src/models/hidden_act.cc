#include "models/hidden_act.h"

namespace pome {

std::optional<HiddenAct> HiddenAct::parse(std::string_view name) {
  HiddenAct out;
  if (name == "silu" || name == "swish") return out;
  if (name == "gelu" || name == "gelu_python") {
    out.plain_ = Activation::kGelu;
  } else if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_python_tanh" ||
             name == "gelu_fast" || name == "gelu_accurate") {
    out.plain_ = Activation::kGeluTanh;
  } else if (name == "relu") {
    out.plain_ = Activation::kRelu;
  } else if (name == "relu2") {
    out.plain_ = Activation::kRelu;
    out.squared_ = true;
  } else if (name == "quick_gelu") {  // x sigmoid(1.702 x)
    out.slope_ = 1.702;
  } else if (name == "tanh") {
    out.tanh_ = true;
  } else {
    return std::nullopt;
  }
  return out;
}

ValueId HiddenAct::apply(GraphBuilder& b, ValueId x, const std::string& name) const {
  if (fused()) return b.add(ActivationOp{plain_}, {x}, name);
  if (tanh_) return b.unary(UnaryKind::kTanh, x, name);
  if (squared_) {
    const ValueId y = b.add(ActivationOp{plain_}, {x});
    return b.binary(BinaryKind::kMul, y, y, name);
  }
  const ValueId steep = b.binary(BinaryKind::kMul, x, b.scalar(static_cast<float>(slope_)));
  return b.binary(BinaryKind::kMul, b.add(ActivationOp{plain_}, {steep}),
                  b.scalar(static_cast<float>(1 / slope_)), name);
}

ValueId HiddenAct::gate(GraphBuilder& b, ValueId gate, ValueId up, const std::string& name) const {
  if (fused()) return b.add(SwigluOp{plain_}, {gate, up}, name);
  return b.binary(BinaryKind::kMul, apply(b, gate, name + ".act"), up, name);
}

std::optional<MoeOp> HiddenAct::gated_experts() const {
  if (tanh_ || squared_) return std::nullopt;
  return MoeOp{true, plain_, slope_};
}

}  // namespace pome
