// Operators that look at one element of each input.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "interp/onnx_ops.h"
#include "refops/refops.h"

namespace pome::onnx_ops {
namespace {

using refops::map;
using refops::zip;

Status check_pair(Call& call) {
  if (call.in(0).dtype() != call.in(1).dtype()) return bad_operand(1, "has another element type");
  if (!refops::broadcast_shape(call.in(0).shape(), call.in(1).shape()))
    return bad_shapes(call.in(0).shape(), call.in(1).shape());
  return {};
}

// op(a, b) over f32, i64 and i32; f16 by way of f32.
template <typename Op>
Status arithmetic(Call& call, Op op) {
  POME_RETURN_IF_ERROR(check_pair(call));
  const Tensor &x = call.in(0), &y = call.in(1);
  switch (x.dtype()) {
    case DType::kI64:
      call.emit(zip<int64_t, int64_t>(
          x, y, [&](int64_t a, int64_t b) { return static_cast<int64_t>(op(a, b)); }));
      return {};
    case DType::kI32:
      call.emit(zip<int32_t, int32_t>(
          x, y, [&](int32_t a, int32_t b) { return static_cast<int32_t>(op(a, b)); }));
      return {};
    default:
      break;
  }
  POME_ASSIGN_OR_RETURN(const Tensor a, call.floats(0));
  POME_ASSIGN_OR_RETURN(const Tensor b, call.floats(1));
  call.emit(rounded_to(
      zip<float, float>(a, b, [&](float p, float q) { return static_cast<float>(op(p, q)); }),
      x.dtype()));
  return {};
}
template <typename Op>
Status comparison(Call& call, Op op) {
  POME_RETURN_IF_ERROR(check_pair(call));
  const Tensor &x = call.in(0), &y = call.in(1);
  if (x.dtype() == DType::kI64) {
    call.emit(zip<int64_t, bool>(x, y, op));
    return {};
  }
  if (x.dtype() == DType::kI32) {
    call.emit(zip<int32_t, bool>(x, y, op));
    return {};
  }
  POME_ASSIGN_OR_RETURN(const Tensor a, call.floats(0));
  POME_ASSIGN_OR_RETURN(const Tensor b, call.floats(1));
  call.emit(zip<float, bool>(a, b, op));
  return {};
}

Status add(Call& call) {
  return arithmetic(call, [](auto a, auto b) { return a + b; });
}
Status sub(Call& call) {
  return arithmetic(call, [](auto a, auto b) { return a - b; });
}
Status mul(Call& call) {
  return arithmetic(call, [](auto a, auto b) { return a * b; });
}
Status div(Call& call) {
  return arithmetic(call, [](auto a, auto b) {
    if constexpr (std::is_integral_v<decltype(b)>) return b == 0 ? b : a / b;
    return a / b;
  });
}
Status pow_op(Call& call) {
  return arithmetic(call, [](auto a, auto b) {
    if constexpr (std::is_floating_point_v<decltype(a)>)
      if (b == 2) return a * a;
    return static_cast<decltype(a)>(std::pow(a, b));
  });
}
Status min_op(Call& call) {
  return arithmetic(call, [](auto a, auto b) { return std::min(a, b); });
}
Status max_op(Call& call) {
  return arithmetic(call, [](auto a, auto b) { return std::max(a, b); });
}
Status less(Call& call) {
  return comparison(call, [](auto a, auto b) { return a < b; });
}
Status less_equal(Call& call) {
  return comparison(call, [](auto a, auto b) { return a <= b; });
}
Status greater(Call& call) {
  return comparison(call, [](auto a, auto b) { return a > b; });
}
Status greater_equal(Call& call) {
  return comparison(call, [](auto a, auto b) { return a >= b; });
}
Status equal(Call& call) {
  return comparison(call, [](auto a, auto b) { return a == b; });
}

template <typename Op>
Status logical(Call& call, Op op) {
  POME_RETURN_IF_ERROR(check_pair(call));
  if (call.in(0).dtype() != DType::kBool) return bad_operand(0, "must be bool");
  call.emit(zip<bool, bool>(call.in(0), call.in(1), op));
  return {};
}
Status and_op(Call& call) {
  return logical(call, [](bool a, bool b) { return a && b; });
}
Status or_op(Call& call) {
  return logical(call, [](bool a, bool b) { return a || b; });
}
Status not_op(Call& call) {
  if (call.in(0).dtype() != DType::kBool) return bad_operand(0, "must be bool");
  call.emit(map<bool, bool>(call.in(0), [](bool a) { return !a; }));
  return {};
}

template <typename Op>
Status bytes(Call& call, Op op) {
  POME_RETURN_IF_ERROR(check_pair(call));
  if (call.in(0).dtype() != DType::kU8) return bad_operand(0, "must be uint8");
  call.emit(zip<uint8_t, uint8_t>(call.in(0), call.in(1), [&](uint8_t a, uint8_t b) {
    return static_cast<uint8_t>(op(a, b));
  }));
  return {};
}
Status bitwise_and(Call& call) {
  return bytes(call, [](int a, int b) { return a & b; });
}
Status bit_shift(Call& call) {
  const bool right = call.text("direction", "") == "RIGHT";
  return bytes(call, [right](int a, int b) { return b > 7 ? 0 : right ? a >> b : a << b; });
}

template <typename Op>
Status unary(Call& call, Op op) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  call.emit(rounded_to(map<float, float>(x, op), call.in(0).dtype()));
  return {};
}
Status neg(Call& call) {
  if (call.in(0).dtype() == DType::kI64) {
    call.emit(map<int64_t, int64_t>(call.in(0), [](int64_t x) { return -x; }));
    return {};
  }
  return unary(call, [](float x) { return -x; });
}
Status exp_op(Call& call) {
  return unary(call, [](float x) { return std::exp(x); });
}
Status log_op(Call& call) {
  return unary(call, [](float x) { return std::log(x); });
}
Status sqrt_op(Call& call) {
  return unary(call, [](float x) { return std::sqrt(x); });
}
Status reciprocal(Call& call) {
  return unary(call, [](float x) { return 1.0f / x; });
}
Status sigmoid(Call& call) {
  return unary(call, [](float x) { return 1.0f / (1.0f + std::exp(-x)); });
}
Status tanh_op(Call& call) {
  return unary(call, [](float x) { return std::tanh(x); });
}
Status erf_op(Call& call) {
  return unary(call, [](float x) { return std::erf(x); });
}
Status sin_op(Call& call) {
  return unary(call, [](float x) { return std::sin(x); });
}
Status cos_op(Call& call) {
  return unary(call, [](float x) { return std::cos(x); });
}
Status relu(Call& call) {
  return unary(call, [](float x) { return std::max(x, 0.0f); });
}
Status abs_op(Call& call) {
  return unary(call, [](float x) { return std::fabs(x); });
}

Status where(Call& call) {
  const Tensor &condition = call.in(0), &x = call.in(1), &y = call.in(2);
  if (condition.dtype() != DType::kBool) return bad_operand(0, "must be bool");
  if (x.dtype() != y.dtype()) return bad_operand(2, "has another element type");
  const auto pair = refops::broadcast_shape(x.shape(), y.shape());
  const auto all = pair ? refops::broadcast_shape(*pair, condition.shape()) : std::nullopt;
  if (!all) return bad_shapes(x.shape(), y.shape());
  if (x.dtype() != DType::kF32) return bad_operand(1, "must be float");
  call.emit(refops::select(condition, x, y));
  return {};
}

Status cast(Call& call) {
  const auto to = onnx::dtype_from_onnx(static_cast<uint64_t>(call.integer("to", 0)));
  if (!to || bits_of(*to) < 8) return bad_operand(0, "is cast to an unknown type");
  call.emit(call.in(0).to(*to));
  return {};
}

constexpr OpSpec kOps[] = {
    {"", "Add", 2, 2, add},
    {"", "Sub", 2, 2, sub},
    {"", "Mul", 2, 2, mul},
    {"", "Div", 2, 2, div},
    {"", "Pow", 2, 2, pow_op},
    {"", "Min", 2, 2, min_op},
    {"", "Max", 2, 2, max_op},
    {"", "Less", 2, 2, less},
    {"", "LessOrEqual", 2, 2, less_equal},
    {"", "Greater", 2, 2, greater},
    {"", "GreaterOrEqual", 2, 2, greater_equal},
    {"", "Equal", 2, 2, equal},
    {"", "And", 2, 2, and_op},
    {"", "Or", 2, 2, or_op},
    {"", "Not", 1, 1, not_op},
    {"", "BitwiseAnd", 2, 2, bitwise_and},
    {"", "BitShift", 2, 2, bit_shift},
    {"", "Neg", 1, 1, neg},
    {"", "Exp", 1, 1, exp_op},
    {"", "Log", 1, 1, log_op},
    {"", "Sqrt", 1, 1, sqrt_op},
    {"", "Reciprocal", 1, 1, reciprocal},
    {"", "Sigmoid", 1, 1, sigmoid},
    {"", "Tanh", 1, 1, tanh_op},
    {"", "Erf", 1, 1, erf_op},
    {"", "Sin", 1, 1, sin_op},
    {"", "Cos", 1, 1, cos_op},
    {"", "Relu", 1, 1, relu},
    {"", "Abs", 1, 1, abs_op},
    {"", "Where", 3, 3, where},
    {"", "Cast", 1, 1, cast},
};

}  // namespace

std::span<const OpSpec> elementwise_ops() { return kOps; }

}  // namespace pome::onnx_ops
