// Products, norms, reductions, and weights of integers.
#include <algorithm>
#include <cmath>

#include "interp/onnx_ops.h"
#include "refops/refops.h"

namespace pome::onnx_ops {
namespace {

Status matmul(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  POME_ASSIGN_OR_RETURN(const Tensor y, call.floats(1));
  if (x.rank() < 2 || y.rank() < 2 || x.dim(-1) != y.dim(-2) ||
      !refops::broadcast_shape(Shape(x.shape().begin(), x.shape().end() - 2),
                               Shape(y.shape().begin(), y.shape().end() - 2)))
    return bad_shapes(x.shape(), y.shape());
  call.emit(rounded_to(refops::matmul(x, y, false, call.pool()), call.in(0).dtype()));
  return {};
}

Status softmax(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", -1), x.rank()));
  if (axis + 1 != x.shape().size()) return bad_operand(0, "is normalised over an inner axis");
  Tensor out = x.clone();
  const int64_t n = x.dim(-1);
  auto values = out.mutable_as<float>();
  for (int64_t row = 0; n > 0 && row < x.count() / n; ++row) {
    const auto part = values.subspan(static_cast<size_t>(row * n), static_cast<size_t>(n));
    const float largest = *std::max_element(part.begin(), part.end());
    double sum = 0;
    for (float& v : part) sum += v = std::exp(v - largest);
    for (float& v : part) v = static_cast<float>(v / sum);
  }
  call.emit(rounded_to(out, call.in(0).dtype()));
  return {};
}

Status layer_normalization(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  POME_ASSIGN_OR_RETURN(const Tensor gain, call.floats(1));
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", -1), x.rank()));
  const int64_t n = x.dim(-1);
  if (axis + 1 != x.shape().size() || gain.count() != n) return bad_shapes(x.shape(), gain.shape());
  Tensor bias;
  if (call.has(2)) {
    POME_ASSIGN_OR_RETURN(bias, call.floats(2));
    if (bias.count() != n) return bad_shapes(x.shape(), bias.shape());
  }
  const double epsilon = call.number("epsilon", 1e-5);
  Tensor out = x.clone();
  auto values = out.mutable_as<float>();
  for (int64_t row = 0; n > 0 && row < x.count() / n; ++row) {
    const auto part = values.subspan(static_cast<size_t>(row * n), static_cast<size_t>(n));
    double mean = 0, variance = 0;
    for (const float v : part) mean += v;
    mean /= static_cast<double>(n);
    for (const float v : part) variance += (v - mean) * (v - mean);
    const double root = std::sqrt(variance / static_cast<double>(n) + epsilon);
    for (size_t i = 0; i < part.size(); ++i) {
      const double unit = (part[i] - mean) / root * gain.f32()[i];
      part[i] = static_cast<float>(unit + (bias.defined() ? bias.f32()[i] : 0.0f));
    }
  }
  call.emit(rounded_to(out, call.in(0).dtype()));
  return {};
}

template <refops::Reduce kind, int kInputSince>
Status reduce(Call& call) {
  const bool integers = call.in(0).dtype() == DType::kI64;
  // Sums of a mask stay exact: they are far below 2^24.
  Tensor x;
  if (integers) {
    x = call.in(0).to(DType::kF32);
  } else {
    POME_ASSIGN_OR_RETURN(x, call.floats(0));
  }
  std::vector<int64_t> axes;
  if (call.opset() >= kInputSince && call.has(1)) {
    POME_ASSIGN_OR_RETURN(axes, call.ints(1));
  } else {
    axes = call.integers("axes").value_or(axes);
  }
  if (axes.size() != 1) return bad_operand(0, "is reduced over other than one axis");
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(axes[0], x.rank()));
  Tensor out = refops::reduce(x, kind, static_cast<int64_t>(axis));
  if (call.integer("keepdims", 1) == 0) {
    Shape shape = out.shape();
    shape.erase(shape.begin() + static_cast<ptrdiff_t>(axis));
    out = out.reshaped(std::move(shape));
  }
  call.emit(integers ? out.to(DType::kI64) : rounded_to(out, call.in(0).dtype()));
  return {};
}

// One scale for the tensor, for each place of an axis, or for blocks along it.
Status dequantize_linear(Call& call) {
  const Tensor& x = call.in(0);
  POME_ASSIGN_OR_RETURN(const Tensor scales, call.floats(1));
  if (call.has(2)) return bad_operand(2, "is not supported: zero points of the plain operator");
  const bool packed = x.dtype() == DType::kI4 || x.dtype() == DType::kU4;
  if (!packed && x.dtype() != DType::kI8 && x.dtype() != DType::kU8)
    return bad_operand(0, "must be integers of 4 or 8 bits");
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", 1), x.rank()));
  const int64_t block = call.integer("block_size", 0), n = x.shape()[axis];
  Shape expected = x.shape();
  if (block > 0)
    expected[axis] = (n + block - 1) / block;
  else
    expected = scales.rank() == 0 ? Shape{} : Shape{n};
  if (scales.shape() != expected) return bad_shapes(x.shape(), scales.shape());
  int64_t inner = 1;
  for (size_t i = axis + 1; i < x.shape().size(); ++i) inner *= x.shape()[i];
  Tensor out = Tensor::zeros(DType::kF32, x.shape());
  auto to = out.mutable_as<float>();
  const auto* bytes = reinterpret_cast<const uint8_t*>(x.bytes().data());
  const bool is_signed = x.dtype() == DType::kI8;
  const int64_t blocks = block > 0 ? expected[axis] : 0;
  for (int64_t i = 0; i < x.count(); ++i) {
    const int64_t at = i / inner % n, outer = i / inner / n;
    const int64_t scale = block > 0            ? (outer * blocks + at / block) * inner + i % inner
                          : scales.rank() == 0 ? 0
                                               : at;
    const int code = packed      ? read_packed(x.bytes(), x.dtype(), i)
                     : is_signed ? static_cast<int>(static_cast<int8_t>(bytes[i]))
                                 : bytes[i];
    to[static_cast<size_t>(i)] =
        static_cast<float>(code) * scales.f32()[static_cast<size_t>(scale)];
  }
  call.emit(rounded_to(out, call.in(1).dtype()));
  return {};
}

constexpr OpSpec kOps[] = {
    {"", "MatMul", 2, 2, matmul},
    {"", "Softmax", 1, 1, softmax},
    {"", "LayerNormalization", 2, 3, layer_normalization},
    {"", "ReduceMean", 1, 2, reduce<refops::Reduce::kMean, 18>},
    {"", "ReduceSum", 1, 2, reduce<refops::Reduce::kSum, 13>},
    {"", "ReduceMax", 1, 2, reduce<refops::Reduce::kMax, 18>},
    {"", "DequantizeLinear", 2, 3, dequantize_linear},
};

}  // namespace

std::span<const OpSpec> math_ops() { return kOps; }

}  // namespace pome::onnx_ops
