// Operations that work element by element, with numpy broadcasting.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kSqrtTwoOverPi = 0.79788456080286535588;

// ---- one operand

template <typename F>
Status unary_float(Call& call, F f) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  call.emit(refops::map<float, float>(x.tensor, f), x.type);
  return {};
}
template <float (*kFunction)(float)>
Status unary(Call& call) {
  return unary_float(call, [](float v) { return kFunction(v); });
}
// abs, square and sign take integers too.
template <float (*kFloat)(float), int32_t (*kInt)(int32_t)>
Status unary_number(Call& call) {
  const Value& x = call.at("x");
  if (!x.is_text() && x.type == DType::kI32) {
    call.emit(refops::map<int32_t, int32_t>(x.tensor, kInt), x.type);
    return {};
  }
  return unary<kFloat>(call);
}

int32_t wrap(int64_t v) { return static_cast<int32_t>(static_cast<uint32_t>(v)); }
float sigmoid_of(float v) {
  // Both branches keep the exponent negative, so nothing overflows.
  if (v >= 0) return 1.0f / (1.0f + std::exp(-v));
  const float e = std::exp(v);
  return e / (1.0f + e);
}
float silu_of(float v) { return v * sigmoid_of(v); }
float relu_of(float v) { return v > 0 || std::isnan(v) ? v : 0.0f; }
float relu6_of(float v) { return std::isnan(v) ? v : std::clamp(v, 0.0f, 6.0f); }
float softplus_of(float v) { return std::max(v, 0.0f) + std::log1p(std::exp(-std::fabs(v))); }
float softsign_of(float v) { return v / (1.0f + std::fabs(v)); }
float square_of(float v) { return v * v; }
float sign_of(float v) { return std::isnan(v) ? v : static_cast<float>((v > 0) - (v < 0)); }
float round_of(float v) { return std::nearbyint(v); }  // the default mode: half to even
int32_t abs_int(int32_t v) { return wrap(std::abs(int64_t{v})); }
int32_t square_int(int32_t v) { return wrap(int64_t{v} * v); }
int32_t sign_int(int32_t v) { return (v > 0) - (v < 0); }
int32_t exp2_int(int32_t v) { return v < 0 || v > 30 ? 0 : int32_t{1} << v; }

// Wrapped because the overloads of <cmath> cannot be template arguments.
#define POME_MATH(name) \
  float name##_of(float v) { return std::name(v); }
POME_MATH(sqrt)
POME_MATH(exp)
POME_MATH(exp2)
POME_MATH(tanh)
POME_MATH(erf)
POME_MATH(cos)
POME_MATH(sin)
POME_MATH(tan)
POME_MATH(acos)
POME_MATH(asin)
POME_MATH(atan)
POME_MATH(cosh)
POME_MATH(sinh)
POME_MATH(atanh)
POME_MATH(floor)
POME_MATH(ceil)
POME_MATH(fabs)
#undef POME_MATH

Status rsqrt(Call& call) {
  POME_ASSIGN_OR_RETURN(const double epsilon, call.number("epsilon", 1e-12));
  const auto e = static_cast<float>(epsilon);
  return unary_float(call, [e](float v) { return 1.0f / std::sqrt(v + e); });
}
Status log_plus(Call& call) {
  POME_ASSIGN_OR_RETURN(const double epsilon, call.number("epsilon", 1e-45));
  const auto e = static_cast<float>(epsilon);
  return unary_float(call, [e](float v) { return std::log(v + e); });
}
Status inverse(Call& call) {
  POME_ASSIGN_OR_RETURN(const double epsilon, call.number("epsilon", 1e-4));
  const auto e = static_cast<float>(epsilon);
  return unary_float(call, [e](float v) { return 1.0f / (v + e); });
}

// Activations with scalar parameters alpha and beta.
template <typename F>
Status with_alpha_beta(Call& call, F f) {
  POME_ASSIGN_OR_RETURN(const double alpha, call.number("alpha", 0));
  POME_ASSIGN_OR_RETURN(const double beta, call.number("beta", 0));
  const auto a = static_cast<float>(alpha), b = static_cast<float>(beta);
  return unary_float(call, [=](float v) { return f(v, a, b); });
}
Status clip(Call& call) {
  return with_alpha_beta(call, [](float v, float a, float b) {
    return std::isnan(v) ? v : std::min(std::max(v, a), b);
  });
}
Status leaky_relu(Call& call) {
  return with_alpha_beta(call, [](float v, float a, float) { return v >= 0 ? v : a * v; });
}
Status elu(Call& call) {
  return with_alpha_beta(call,
                         [](float v, float a, float) { return v >= 0 ? v : a * std::expm1(v); });
}
Status clamped_relu(Call& call) {
  return with_alpha_beta(
      call, [](float v, float a, float b) { return v >= 0 ? std::min(b, v) : std::min(b, a * v); });
}
Status linear_activation(Call& call) {
  return with_alpha_beta(call, [](float v, float a, float b) { return a * v + b; });
}
Status scaled_tanh(Call& call) {
  return with_alpha_beta(call, [](float v, float a, float b) { return a * std::tanh(b * v); });
}
Status sigmoid_hard(Call& call) {
  return with_alpha_beta(
      call, [](float v, float a, float b) { return std::min(std::max(a * v + b, 0.0f), 1.0f); });
}
Status thresholded_relu(Call& call) {
  return with_alpha_beta(call, [](float v, float a, float) { return v >= a ? v : 0.0f; });
}
Status threshold(Call& call) {
  return with_alpha_beta(call, [](float v, float a, float) { return std::max(v, a); });
}
// alpha per channel: axis 1 of x.
Status prelu(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(const Value alpha, call.floats("alpha"));
  if (x.tensor.rank() < 3 || alpha.tensor.rank() != 1 ||
      (alpha.tensor.count() != 1 && alpha.tensor.count() != x.tensor.dim(1)))
    return bad_shapes(x.shape(), alpha.shape());
  Shape per_channel(static_cast<size_t>(x.tensor.rank()), 1);
  per_channel[1] = alpha.tensor.count();
  call.emit(refops::zip<float, float>(x.tensor, alpha.tensor.reshaped(per_channel),
                                      [](float v, float a) { return v > 0 ? v : a * v; }),
            x.type);
  return {};
}
Status gelu(Call& call) {
  POME_ASSIGN_OR_RETURN(const std::string mode, call.text("mode", "EXACT"));
  if (mode == "EXACT") {
    return unary_float(call, [](float v) {
      return static_cast<float>(0.5 * v * (1.0 + std::erf(v * kSqrtHalf)));
    });
  }
  if (mode == "TANH_APPROXIMATION") {
    return unary_float(call, [](float v) {
      const double d = v;
      return static_cast<float>(0.5 * d *
                                (1.0 + std::tanh(kSqrtTwoOverPi * (d + 0.044715 * d * d * d))));
    });
  }
  if (mode == "SIGMOID_APPROXIMATION")
    return unary_float(call, [](float v) { return v * sigmoid_of(1.702f * v); });
  return bad_operand("mode", "is '" + mode +
                                 "'; EXACT, TANH_APPROXIMATION and "
                                 "SIGMOID_APPROXIMATION are known");
}
Status logical_not(Call& call) {
  const Value& x = call.at("x");
  if (x.type != DType::kBool) return bad_operand("x", "must be bool");
  call.emit(refops::map<bool, bool>(x.tensor, [](bool v) { return !v; }), x.type);
  return {};
}
Status identity(Call& call) {
  Value x = call.take("x");
  call.results().push_back(std::move(x));
  return {};
}

// ---- two operands

// Both of one type, shapes broadcast.
Status check_pair(const Call& call) {
  const Value& x = call.at("x");
  const Value& y = call.at("y");
  if (x.is_text() || y.is_text()) return bad_operand("x", "must be a tensor of numbers");
  if (x.type != y.type) return bad_types(x.type, y.type);
  if (!refops::broadcast_shape(x.shape(), y.shape())) return bad_shapes(x.shape(), y.shape());
  return {};
}
template <typename Float, typename Int>
Status arithmetic(Call& call, Float on_floats, Int on_ints) {
  POME_RETURN_IF_ERROR(check_pair(call));
  const Value& x = call.at("x");
  const Value& y = call.at("y");
  if (is_float(x.type))
    call.emit(refops::zip<float, float>(x.tensor, y.tensor, on_floats), x.type);
  else if (x.type == DType::kI32)
    call.emit(refops::zip<int32_t, int32_t>(x.tensor, y.tensor, on_ints), x.type);
  else
    return bad_operand("x", "must be fp16, fp32 or int32");
  return {};
}
template <typename F>
Status compare(Call& call, F f) {
  POME_RETURN_IF_ERROR(check_pair(call));
  const Value& x = call.at("x");
  const Value& y = call.at("y");
  switch (storage_of(x.type)) {
    case DType::kF32:
      call.emit(refops::zip<float, bool>(x.tensor, y.tensor, f), DType::kBool);
      return {};
    case DType::kI32:
      call.emit(refops::zip<int32_t, bool>(x.tensor, y.tensor, f), DType::kBool);
      return {};
    default:
      call.emit(refops::zip<bool, bool>(x.tensor, y.tensor, f), DType::kBool);
      return {};
  }
}
template <typename F>
Status logical(Call& call, F f) {
  POME_RETURN_IF_ERROR(check_pair(call));
  if (call.at("x").type != DType::kBool) return bad_operand("x", "must be bool");
  call.emit(refops::zip<bool, bool>(call.at("x").tensor, call.at("y").tensor, f), DType::kBool);
  return {};
}

// Integer division and remainder follow numpy: toward minus infinity, 0 where the divisor is 0.
int32_t floor_div_int(int32_t x, int32_t y) {
  if (y == 0) return 0;
  const int64_t q = int64_t{x} / y;
  return wrap((x % int64_t{y} != 0 && (x < 0) != (y < 0)) ? q - 1 : q);
}
int32_t mod_int(int32_t x, int32_t y) {
  if (y == 0) return 0;
  const int64_t r = int64_t{x} % y;
  return wrap(r != 0 && (r < 0) != (y < 0) ? r + y : r);
}
float mod_float(float x, float y) {
  const float r = std::fmod(x, y);
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
int32_t pow_int(int32_t base, int32_t exponent) {
  uint32_t out = 1;
  auto square = static_cast<uint32_t>(base);
  for (auto e = static_cast<uint32_t>(exponent); e != 0; e >>= 1, square *= square)
    if ((e & 1u) != 0) out *= square;
  return static_cast<int32_t>(out);
}

Status add(Call& call) {
  return arithmetic(
      call, [](float a, float b) { return a + b; },
      [](int32_t a, int32_t b) { return wrap(int64_t{a} + b); });
}
Status sub(Call& call) {
  return arithmetic(
      call, [](float a, float b) { return a - b; },
      [](int32_t a, int32_t b) { return wrap(int64_t{a} - b); });
}
Status mul(Call& call) {
  return arithmetic(
      call, [](float a, float b) { return a * b; },
      [](int32_t a, int32_t b) { return wrap(int64_t{a} * b); });
}
Status real_div(Call& call) {
  POME_RETURN_IF_ERROR(check_pair(call));
  if (!is_float(call.at("x").type))
    return unsupported("real_div of integers (Core ML declares the result an integer; cast first)");
  call.emit(refops::zip<float, float>(call.at("x").tensor, call.at("y").tensor,
                                      [](float a, float b) { return a / b; }),
            call.at("x").type);
  return {};
}
Status floor_div(Call& call) {
  return arithmetic(
      call, [](float a, float b) { return std::floor(a / b); }, floor_div_int);
}
Status mod(Call& call) { return arithmetic(call, mod_float, mod_int); }
Status power(Call& call) {
  POME_RETURN_IF_ERROR(check_pair(call));
  const Value& y = call.at("y");
  if (y.type == DType::kI32) {
    const auto list = y.tensor.as<int32_t>();
    if (std::any_of(list.begin(), list.end(), [](int32_t v) { return v < 0; }))
      return bad_operand("y", "must not be negative when it is an integer");
  }
  return arithmetic(
      call, [](float a, float b) { return std::pow(a, b); }, pow_int);
}
Status maximum(Call& call) {
  return arithmetic(
      call, [](float a, float b) { return std::isnan(a) || a > b ? a : b; },
      [](int32_t a, int32_t b) { return std::max(a, b); });
}
Status minimum(Call& call) {
  return arithmetic(
      call, [](float a, float b) { return std::isnan(a) || a < b ? a : b; },
      [](int32_t a, int32_t b) { return std::min(a, b); });
}

Status equal(Call& call) {
  return compare(call, [](auto a, auto b) { return a == b; });
}
Status not_equal(Call& call) {
  return compare(call, [](auto a, auto b) { return a != b; });
}
Status less(Call& call) {
  return compare(call, [](auto a, auto b) { return a < b; });
}
Status less_equal(Call& call) {
  return compare(call, [](auto a, auto b) { return a <= b; });
}
Status greater(Call& call) {
  return compare(call, [](auto a, auto b) { return a > b; });
}
Status greater_equal(Call& call) {
  return compare(call, [](auto a, auto b) { return a >= b; });
}
Status logical_and(Call& call) {
  return logical(call, [](bool a, bool b) { return a && b; });
}
Status logical_or(Call& call) {
  return logical(call, [](bool a, bool b) { return a || b; });
}
Status logical_xor(Call& call) {
  return logical(call, [](bool a, bool b) { return a != b; });
}

// ---- select, cast, quantize

Status select(Call& call) {
  const Value& condition = call.at("cond");
  const Value& a = call.at("a");
  const Value& b = call.at("b");
  if (condition.type != DType::kBool) return bad_operand("cond", "must be bool");
  if (a.is_text() || b.is_text()) return bad_operand("a", "must be a tensor");
  if (a.type != b.type) return bad_types(a.type, b.type);
  const auto shape = refops::broadcast_shape(a.shape(), b.shape());
  if (!shape) return bad_shapes(a.shape(), b.shape());
  if (!refops::broadcast_shape(*shape, condition.shape()))
    return bad_shapes(*shape, condition.shape());
  call.emit(refops::select(condition.tensor, a.tensor, b.tensor), a.type);
  return {};
}

int32_t float_to_int(float v) {
  if (std::isnan(v)) return 0;
  if (v >= 2147483648.0f) return std::numeric_limits<int32_t>::max();
  if (v < -2147483648.0f) return std::numeric_limits<int32_t>::min();
  return static_cast<int32_t>(v);
}
int32_t narrow(int32_t v, DType type) {
  switch (type) {
    case DType::kI8:
      return static_cast<int8_t>(v);
    case DType::kU8:
      return static_cast<uint8_t>(v);
    case DType::kI16:
      return static_cast<int16_t>(v);
    case DType::kU16:
      return static_cast<uint16_t>(v);
    default:
      return v;
  }
}
std::optional<DType> type_named(std::string_view name) {
  constexpr std::pair<std::string_view, DType> kNames[] = {
      {"fp16", DType::kF16}, {"fp32", DType::kF32}, {"int32", DType::kI32}, {"bool", DType::kBool},
      {"int8", DType::kI8},  {"uint8", DType::kU8}, {"int16", DType::kI16}, {"uint16", DType::kU16},
  };
  for (const auto& [text, type] : kNames)
    if (text == name) return type;
  return std::nullopt;
}
Tensor to_floats(const Tensor& x) {
  if (x.dtype() == DType::kI32)
    return refops::map<int32_t, float>(x, [](int32_t v) { return static_cast<float>(v); });
  if (x.dtype() == DType::kBool)
    return refops::map<bool, float>(x, [](bool v) { return v ? 1.0f : 0.0f; });
  return x;
}
Status cast(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text()) return bad_operand("x", "must be a tensor");
  POME_ASSIGN_OR_RETURN(const std::string name, call.text("dtype", ""));
  const std::optional<DType> type = type_named(name);
  if (!type) return unsupported("cast to '" + name + "'");
  const DType from = x.tensor.dtype();
  if (*type == DType::kBool) {
    if (from == DType::kF32)
      call.emit(refops::map<float, bool>(x.tensor, [](float v) { return v != 0; }), *type);
    else if (from == DType::kI32)
      call.emit(refops::map<int32_t, bool>(x.tensor, [](int32_t v) { return v != 0; }), *type);
    else
      call.emit(x.tensor, *type);
  } else if (is_float(*type)) {
    call.emit(to_floats(x.tensor), *type);
  } else if (from == DType::kF32) {
    call.emit(refops::map<float, int32_t>(x.tensor,
                                          [&](float v) { return narrow(float_to_int(v), *type); }),
              *type);
  } else if (from == DType::kBool) {
    call.emit(refops::map<bool, int32_t>(x.tensor, [](bool v) { return v ? 1 : 0; }), *type);
  } else {
    call.emit(refops::map<int32_t, int32_t>(x.tensor, [&](int32_t v) { return narrow(v, *type); }),
              *type);
  }
  return {};
}

// scale or zero_point, scalar or one per element of `axis`, ready to broadcast against the input.
Result<Tensor> per_channel(const Call& call, std::string_view name, const Tensor& input) {
  const Value& value = call.at(name);
  if (value.is_text() || value.type == DType::kBool) return bad_operand(name, "must be a number");
  const Tensor numbers = to_floats(value.tensor);
  if (numbers.rank() == 0) return numbers;
  if (!call.has("axis")) return bad_operand("axis", "is needed with one scale per channel");
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, input.rank()));
  if (numbers.rank() != 1 || numbers.count() != input.dim(axis))
    return bad_operand(name, "has shape " + shape_text(numbers.shape()) + " for an axis of " +
                                 std::to_string(input.dim(axis)));
  Shape shape(static_cast<size_t>(input.rank()), 1);
  shape[static_cast<size_t>(axis)] = numbers.count();
  return numbers.reshaped(std::move(shape));
}
Status quantize(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value input, call.floats("input"));
  POME_ASSIGN_OR_RETURN(const Tensor scale, per_channel(call, "scale", input.tensor));
  POME_ASSIGN_OR_RETURN(const std::string name, call.text("output_dtype", ""));
  const std::optional<DType> type = type_named(name);
  if (type != DType::kI8 && type != DType::kU8)
    return bad_operand("output_dtype", "must be int8 or uint8");
  const float low = *type == DType::kI8 ? -128.0f : 0.0f;
  const float high = *type == DType::kI8 ? 127.0f : 255.0f;
  Tensor steps = refops::zip<float, float>(input.tensor, scale,
                                           [](float v, float s) { return std::nearbyint(v / s); });
  if (call.has("zero_point")) {
    POME_ASSIGN_OR_RETURN(const Tensor zero, per_channel(call, "zero_point", input.tensor));
    steps = refops::zip<float, float>(steps, zero, [](float v, float z) { return v + z; });
  }
  call.emit(refops::map<float, int32_t>(
                steps, [&](float v) { return float_to_int(std::clamp(v, low, high)); }),
            *type);
  return {};
}
Status dequantize(Call& call) {
  const Value& input = call.at("input");
  if (input.type != DType::kI8 && input.type != DType::kU8)
    return bad_operand("input", "must be int8 or uint8");
  POME_ASSIGN_OR_RETURN(const Value scale_value, call.floats("scale"));
  POME_ASSIGN_OR_RETURN(const Tensor scale, per_channel(call, "scale", input.tensor));
  Tensor x = to_floats(input.tensor);
  if (call.has("zero_point")) {
    POME_ASSIGN_OR_RETURN(const Tensor zero, per_channel(call, "zero_point", input.tensor));
    x = refops::zip<float, float>(x, zero, [](float v, float z) { return v - z; });
  }
  call.emit(refops::zip<float, float>(x, scale, [](float v, float s) { return v * s; }),
            scale_value.type);
  return {};
}

constexpr OpSpec kOps[] = {
    {"sqrt", unary<sqrt_of>, "x", ""},
    {"exp", unary<exp_of>, "x", ""},
    {"exp2", unary_number<exp2_of, exp2_int>, "x", ""},
    {"tanh", unary<tanh_of>, "x", ""},
    {"erf", unary<erf_of>, "x", ""},
    {"cos", unary<cos_of>, "x", ""},
    {"sin", unary<sin_of>, "x", ""},
    {"tan", unary<tan_of>, "x", ""},
    {"acos", unary<acos_of>, "x", ""},
    {"asin", unary<asin_of>, "x", ""},
    {"atan", unary<atan_of>, "x", ""},
    {"cosh", unary<cosh_of>, "x", ""},
    {"sinh", unary<sinh_of>, "x", ""},
    {"atanh", unary<atanh_of>, "x", ""},
    {"floor", unary<floor_of>, "x", ""},
    {"ceil", unary<ceil_of>, "x", ""},
    {"round", unary<round_of>, "x", ""},
    {"abs", unary_number<fabs_of, abs_int>, "x", ""},
    {"square", unary_number<square_of, square_int>, "x", ""},
    {"sign", unary_number<sign_of, sign_int>, "x", ""},
    {"sigmoid", unary<sigmoid_of>, "x", ""},
    {"silu", unary<silu_of>, "x", ""},
    {"relu", unary<relu_of>, "x", ""},
    {"relu6", unary<relu6_of>, "x", ""},
    {"softplus", unary<softplus_of>, "x", ""},
    {"softsign", unary<softsign_of>, "x", ""},
    {"rsqrt", rsqrt, "x", "epsilon"},
    {"log", log_plus, "x", "epsilon"},
    {"inverse", inverse, "x", "epsilon"},
    {"clip", clip, "x alpha beta", ""},
    {"leaky_relu", leaky_relu, "x alpha", ""},
    {"elu", elu, "x alpha", ""},
    {"clamped_relu", clamped_relu, "x alpha beta", ""},
    {"linear_activation", linear_activation, "x alpha beta", ""},
    {"scaled_tanh", scaled_tanh, "x alpha beta", ""},
    {"sigmoid_hard", sigmoid_hard, "x alpha beta", ""},
    {"thresholded_relu", thresholded_relu, "x alpha", ""},
    {"threshold", threshold, "x alpha", ""},
    {"prelu", prelu, "x alpha", ""},
    {"gelu", gelu, "x", "mode"},
    {"logical_not", logical_not, "x", ""},
    {"identity", identity, "x", "", kMoves},
    {"add", add, "x y", ""},
    {"sub", sub, "x y", ""},
    {"mul", mul, "x y", ""},
    {"real_div", real_div, "x y", ""},
    {"floor_div", floor_div, "x y", ""},
    {"mod", mod, "x y", ""},
    {"pow", power, "x y", ""},
    {"maximum", maximum, "x y", ""},
    {"minimum", minimum, "x y", ""},
    {"equal", equal, "x y", ""},
    {"not_equal", not_equal, "x y", ""},
    {"less", less, "x y", ""},
    {"less_equal", less_equal, "x y", ""},
    {"greater", greater, "x y", ""},
    {"greater_equal", greater_equal, "x y", ""},
    {"logical_and", logical_and, "x y", ""},
    {"logical_or", logical_or, "x y", ""},
    {"logical_xor", logical_xor, "x y", ""},
    {"select", select, "cond a b", "", kMoves},
    {"cast", cast, "x dtype", ""},
    {"quantize", quantize, "input scale output_dtype", "zero_point axis"},
    {"dequantize", dequantize, "input scale", "zero_point axis"},
};

}  // namespace

std::span<const OpSpec> elementwise_ops() { return kOps; }

}  // namespace pome::mil_ops
