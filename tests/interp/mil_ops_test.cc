// Meaning of single operations where it is easy to get wrong.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "interp/mil_builder.h"

namespace pome {
namespace {

using test::bind;
using test::bind_list;
using test::floats;
using test::immediate;
using test::ints;
using test::Parameters;
using test::tensor_type;

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

mil::ValueData bools(const std::vector<uint8_t>& values) {
  return immediate<uint8_t>(DType::kBool, {static_cast<int64_t>(values.size())}, values);
}
mil::ValueData boolean(bool value) { return immediate<uint8_t>(DType::kBool, {}, {value}); }
mil::ValueData scalar(float value) { return floats({}, {value}); }
mil::ValueData integer(int32_t value) { return ints({}, {value}); }
mil::ValueData text(const std::string& value) { return mil::ValueData::string(value); }

// Runs one operation over inline parameters; `outputs` are the declared types.
Result<NamedTensors> evaluate(const std::string& op, Parameters parameters,
                              std::vector<mil::Type> outputs) {
  test::FunctionBuilder function;
  std::vector<mil::NamedType> named;
  std::vector<std::string> names;
  for (size_t i = 0; i < outputs.size(); ++i) {
    names.push_back("y" + std::to_string(i));
    named.push_back({names.back(), outputs[i]});
  }
  function.op(op, std::move(parameters), named).returns(names);
  auto program = test::make_program({function.build()});
  if (!program.ok()) return program.status();
  return (*program)->run("main", {}, nullptr);
}
std::vector<double> numbers(const Tensor& t) {
  const Tensor d = t.to(DType::kF64);
  return {d.as<double>().begin(), d.as<double>().end()};
}
void expect_values(const Result<NamedTensors>& got, const std::vector<double>& want,
                   double tolerance = 0, size_t output = 0) {
  ASSERT_TRUE(got.ok()) << got.status().to_string();
  ASSERT_GT(got->size(), output);
  const std::vector<double> have = numbers((*got)[output].second);
  ASSERT_EQ(have.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i]))
      EXPECT_TRUE(std::isnan(have[i])) << "element " << i;
    else if (tolerance == 0 || std::isinf(want[i]))
      EXPECT_EQ(have[i], want[i]) << "element " << i;
    else
      EXPECT_NEAR(have[i], want[i], tolerance) << "element " << i;
  }
}
void expect_error(const Result<NamedTensors>& got, StatusCode code, const std::string& part) {
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.status().code(), code);
  EXPECT_NE(got.status().to_string().find(part), std::string::npos) << got.status().to_string();
}
mil::Type f32(std::vector<int64_t> dims) { return tensor_type(DType::kF32, std::move(dims)); }
mil::Type i32(std::vector<int64_t> dims) { return tensor_type(DType::kI32, std::move(dims)); }
mil::Type of(DType type, std::vector<int64_t> dims) { return tensor_type(type, std::move(dims)); }

std::vector<float> counting(int n) {
  std::vector<float> out;
  for (int i = 0; i < n; ++i) out.push_back(static_cast<float>(i));
  return out;
}

// ---- slices

Result<NamedTensors> slice(std::vector<int32_t> begin, std::vector<int32_t> end,
                           std::vector<int32_t> stride, std::vector<uint8_t> begin_mask,
                           std::vector<uint8_t> end_mask, std::vector<uint8_t> squeeze,
                           std::vector<int64_t> dims) {
  return evaluate("slice_by_index",
                  {bind("x", floats({3, 4}, counting(12))), bind("begin", ints({2}, begin)),
                   bind("end", ints({2}, end)), bind("stride", ints({2}, stride)),
                   bind("begin_mask", bools(begin_mask)), bind("end_mask", bools(end_mask)),
                   bind("squeeze_mask", bools(squeeze))},
                  {f32(std::move(dims))});
}
TEST(MilSlice, NegativeStridesAndMasks) {
  // x[::-1, ::-2]
  expect_values(slice({0, 0}, {0, 0}, {-1, -2}, {1, 1}, {1, 1}, {0, 0}, {3, 2}),
                {11, 9, 7, 5, 3, 1});
  // x[2:0:-1, 3:1:-1]: both ends given, the end excluded
  expect_values(slice({2, 3}, {0, 1}, {-1, -1}, {0, 0}, {0, 0}, {0, 0}, {2, 2}), {11, 10, 7, 6});
  // x[-2:, :-1]
  expect_values(slice({-2, 0}, {0, -1}, {1, 1}, {0, 1}, {1, 0}, {0, 0}, {2, 3}),
                {4, 5, 6, 8, 9, 10});
  // x[-1, 1:9]: squeezed axis, clamped end
  expect_values(slice({-1, 1}, {0, 9}, {1, 1}, {0, 0}, {0, 0}, {1, 0}, {3}), {9, 10, 11});
  // x[:, 2] keeps the rows
  expect_values(slice({0, 2}, {0, 0}, {1, 1}, {1, 0}, {1, 0}, {0, 1}, {3}), {2, 6, 10});
  // both squeezed: rank 0
  expect_values(slice({1, 3}, {0, 0}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, {}), {7});
  // x[1:1]: nothing
  expect_values(slice({1, 0}, {1, 4}, {1, 1}, {0, 0}, {0, 0}, {0, 0}, {0, 4}), {});
  // the end is clamped below too: x[2:-9:-1] runs to the first row
  expect_values(slice({2, 0}, {-9, 1}, {-1, 1}, {0, 0}, {0, 0}, {0, 0}, {3, 1}), {8, 4, 0});
  expect_error(slice({3, 0}, {0, 0}, {1, 1}, {0, 0}, {0, 1}, {1, 0}, {4}), StatusCode::kBadInput,
               "takes index 3 of an axis of 3");
  expect_error(slice({0, 0}, {3, 4}, {0, 1}, {0, 0}, {0, 0}, {0, 0}, {3, 4}), StatusCode::kBadInput,
               "stride");
}
TEST(MilSlice, BySize) {
  const auto take = [&](std::vector<int32_t> begin, std::vector<int32_t> size,
                        std::vector<int64_t> dims) {
    return evaluate("slice_by_size",
                    {bind("x", floats({3, 4}, counting(12))), bind("begin", ints({2}, begin)),
                     bind("size", ints({2}, size))},
                    {f32(std::move(dims))});
  };
  expect_values(take({1, 1}, {-1, 2}, {2, 2}), {5, 6, 9, 10});
  expect_values(take({2, 0}, {1, 4}, {1, 4}), {8, 9, 10, 11});
  expect_error(take({2, 0}, {2, 4}, {2, 4}), StatusCode::kBadInput, "size");
}
TEST(MilSlice, Update) {
  const auto update = [&](std::vector<float> values, std::vector<int64_t> dims,
                          std::vector<int32_t> begin, std::vector<int32_t> end,
                          std::vector<int32_t> stride, std::vector<uint8_t> squeeze) {
    return evaluate("slice_update",
                    {bind("x", floats({3, 4}, counting(12))), bind("update", floats(dims, values)),
                     bind("begin", ints({2}, begin)), bind("end", ints({2}, end)),
                     bind("stride", ints({2}, stride)), bind("squeeze_mask", bools(squeeze))},
                    {f32({3, 4})});
  };
  expect_values(update({-1, -2, -3, -4}, {2, 2}, {1, 1}, {3, 3}, {1, 1}, {0, 0}),
                {0, 1, 2, 3, 4, -1, -2, 7, 8, -3, -4, 11});
  // strides, one of them backwards: rows 2 and 0, columns 0 and 2
  expect_values(update({-1, -2, -3, -4}, {2, 2}, {2, 0}, {-4, 4}, {-2, 2}, {0, 0}),
                {-3, 1, -4, 3, 4, 5, 6, 7, -1, 9, -2, 11});
  // a squeezed axis is absent from the update
  expect_values(update({-1, -2, -3}, {3}, {0, 3}, {3, 0}, {1, 1}, {0, 1}),
                {0, 1, 2, -1, 4, 5, 6, -2, 8, 9, 10, -3});
  expect_error(update({-1}, {1, 1}, {1, 1}, {3, 3}, {1, 1}, {0, 0}), StatusCode::kBadInput,
               "the slice has shape [2, 2]");
  // beyond the axis numpy would clamp: the shapes no longer agree
  expect_error(update({-1, -2}, {2, 1}, {2, 0}, {4, 1}, {1, 1}, {0, 0}), StatusCode::kBadInput,
               "the slice has shape [1, 1]");
}

// ---- element by element

TEST(MilElementwise, SelectBroadcastsItsCondition) {
  expect_values(evaluate("select",
                         {bind("cond", immediate<uint8_t>(DType::kBool, {2, 1}, {1, 0})),
                          bind("a", floats({2, 3}, counting(6))), bind("b", scalar(-1))},
                         {f32({2, 3})}),
                {0, 1, 2, -1, -1, -1});
}
TEST(MilElementwise, IntegersFollowNumpy) {
  const auto on = [](const char* op, std::vector<int32_t> y) {
    return evaluate(op, {bind("x", ints({4}, {7, -7, 7, -7})), bind("y", ints({4}, std::move(y)))},
                    {i32({4})});
  };
  expect_values(on("floor_div", {2, 2, -2, -2}), {3, -4, -4, 3});
  expect_values(on("mod", {2, 2, -2, -2}), {1, 1, -1, -1});
  expect_values(on("floor_div", {0, 0, 7, 7}), {0, 0, 1, -1});
  expect_values(on("pow", {2, 3, 0, 1}), {49, -343, 1, -7});
  expect_error(on("pow", {-1, 0, 0, 0}), StatusCode::kBadInput, "'y'");
  expect_error(on("real_div", {1, 1, 1, 1}), StatusCode::kUnsupported, "real_div");
  expect_values(evaluate("add",
                         {bind("x", ints({1}, {std::numeric_limits<int32_t>::max()})),
                          bind("y", ints({1}, {1}))},
                         {i32({1})}),
                {std::numeric_limits<int32_t>::min()});
}
TEST(MilElementwise, FloatModHasTheSignOfTheDivisor) {
  expect_values(
      evaluate("mod",
               {bind("x", floats({3}, {5.5f, -5.5f, 5.5f})), bind("y", floats({3}, {2, 2, -2}))},
               {f32({3})}),
      {1.5, 0.5, -0.5});
}
TEST(MilElementwise, NanSpreads) {
  const auto x = [&] { return floats({3}, {kNan, 1, 2}); };
  for (const char* op : {"maximum", "minimum"}) {
    expect_values(evaluate(op, {bind("x", x()), bind("y", floats({3}, {1, kNan, 2}))}, {f32({3})}),
                  {kNan, kNan, 2});
  }
  for (const char* op : {"relu", "relu6", "sign"})
    expect_values(evaluate(op, {bind("x", floats({1}, {kNan}))}, {f32({1})}), {kNan});
}
TEST(MilElementwise, LargeArgumentsStayFinite) {
  const auto on = [](const char* op) {
    return evaluate(op, {bind("x", floats({4}, {-1000, 1000, -kInf, 0}))}, {f32({4})});
  };
  expect_values(on("sigmoid"), {0, 1, 0, 0.5});
  expect_values(on("softplus"), {0, 1000, 0, std::log(2.0)}, 1e-6);
  expect_values(on("relu6"), {0, 6, 0, 0});
}
TEST(MilElementwise, RoundIsHalfToEven) {
  expect_values(
      evaluate("round", {bind("x", floats({5}, {0.5f, 1.5f, 2.5f, -0.5f, -1.5f}))}, {f32({5})}),
      {0, 2, 2, 0, -2});
}
TEST(MilElementwise, Activations) {
  const auto on = [](const char* op, Parameters more) {
    more.insert(more.begin(), bind("x", floats({3}, {-2, 0.5f, 3})));
    return evaluate(op, std::move(more), {f32({3})});
  };
  const auto a = [](float v) { return bind("alpha", scalar(v)); };
  const auto b = [](float v) { return bind("beta", scalar(v)); };
  expect_values(on("clip", {a(-1), b(1)}), {-1, 0.5, 1});
  expect_values(on("leaky_relu", {a(0.5f)}), {-1, 0.5, 3});
  expect_values(on("elu", {a(2)}), {2 * std::expm1(-2.0), 0.5, 3}, 1e-6);
  expect_values(on("clamped_relu", {a(0.5f), b(1)}), {-1, 0.5, 1});
  expect_values(on("linear_activation", {a(2), b(1)}), {-3, 2, 7});
  expect_values(on("scaled_tanh", {a(2), b(0.5f)}),
                {2 * std::tanh(-1.0), 2 * std::tanh(0.25), 2 * std::tanh(1.5)}, 1e-6);
  expect_values(on("sigmoid_hard", {a(0.25f), b(0.5f)}), {0, 0.625, 1});
  expect_values(on("thresholded_relu", {a(0.5f)}), {0, 0.5, 3});
  expect_values(on("threshold", {a(0.5f)}), {0.5, 0.5, 3});
  expect_values(on("softsign", {}), {-2.0 / 3, 1.0 / 3, 0.75}, 1e-6);
  expect_error(on("gelu", {bind("mode", text("FAST"))}), StatusCode::kBadInput, "FAST");
  expect_values(evaluate("prelu",
                         {bind("x", floats({1, 2, 2}, {-1, 1, -1, 1})),
                          bind("alpha", floats({2}, {0.5f, 0.25f}))},
                         {f32({1, 2, 2})}),
                {-0.5, 1, -0.25, 1});
}
TEST(MilElementwise, Casts) {
  const auto cast = [](mil::ValueData x, const char* to, DType type, std::vector<int64_t> dims) {
    return evaluate("cast", {bind("x", std::move(x)), bind("dtype", text(to))},
                    {of(type, std::move(dims))});
  };
  expect_values(cast(floats({4}, {1.9f, -1.9f, 3e9f, kNan}), "int32", DType::kI32, {4}),
                {1, -1, 2147483647, 0});
  expect_values(cast(floats({3}, {0, 0.25f, kNan}), "bool", DType::kBool, {3}), {0, 1, 1});
  expect_values(cast(ints({2}, {300, -1}), "uint8", DType::kU8, {2}), {44, 255});
  expect_values(cast(ints({2}, {200, -129}), "int8", DType::kI8, {2}), {-56, 127});
  expect_values(cast(ints({1}, {70000}), "uint16", DType::kU16, {1}), {4464});
  expect_error(cast(ints({1}, {1}), "fp8", DType::kF32, {1}), StatusCode::kUnsupported, "fp8");
}
TEST(MilElementwise, TypesMustAgree) {
  expect_error(evaluate("add",
                        {bind("x", floats({1}, {1})),
                         bind("y", immediate<uint16_t>(DType::kF16, {1}, {0x3C00}))},
                        {f32({1})}),
               StatusCode::kBadInput, "f32 and f16");
  expect_error(evaluate("add", {bind("x", floats({2}, {1, 2})), bind("y", floats({3}, {1, 2, 3}))},
                        {f32({3})}),
               StatusCode::kBadInput, "[2] and [3]");
}
TEST(MilElementwise, QuantizeClipsAndRoundsToEven) {
  const auto quantize = [](std::vector<float> x, const char* type, Parameters more, DType out) {
    const auto n = static_cast<int64_t>(x.size());
    more.push_back(bind("input", floats({n}, x)));
    more.push_back(bind("scale", scalar(0.5f)));
    more.push_back(bind("output_dtype", text(type)));
    return evaluate("quantize", std::move(more), {of(out, {n})});
  };
  expect_values(quantize({0.25f, 0.75f, -0.25f, 1000, -1000}, "int8", {}, DType::kI8),
                {0, 2, 0, 127, -128});
  expect_values(
      quantize({-64, -65, 64}, "uint8",
               {bind("zero_point", immediate<uint8_t>(DType::kU8, {}, {128}))}, DType::kU8),
      {0, 0, 255});
  expect_values(evaluate("dequantize",
                         {bind("input", immediate<int8_t>(DType::kI8, {2, 2}, {-128, 1, 2, 3})),
                          bind("scale", floats({2}, {0.5f, 2})), bind("axis", integer(1)),
                          bind("zero_point", immediate<int8_t>(DType::kI8, {2}, {0, 1}))},
                         {f32({2, 2})}),
                {-64, 0, 1, 4});
}

// ---- shapes

TEST(MilShape, ReshapeCopiesAndInfers) {
  const auto reshape = [](std::vector<int32_t> shape, std::vector<int64_t> dims) {
    const auto n = static_cast<int64_t>(shape.size());
    return evaluate("reshape",
                    {bind("x", floats({2, 3, 4}, counting(24))), bind("shape", ints({n}, shape))},
                    {f32(std::move(dims))});
  };
  EXPECT_TRUE(reshape({0, -1}, {3, 8}).ok());  // 0 copies counted from the right: x has 3 there
  EXPECT_TRUE(reshape({-1, 0}, {6, 4}).ok());
  EXPECT_TRUE(reshape({4, 6}, {4, 6}).ok());
  expect_error(reshape({5, -1}, {5, 5}), StatusCode::kBadInput, "shape");
  expect_error(reshape({-1, -1}, {4, 6}), StatusCode::kBadInput, "twice");
  expect_error(reshape({1, 1, 1, 0}, {1, 1, 1, 4}), StatusCode::kBadInput, "shape");
}
TEST(MilShape, SqueezeLeavesLargerAxesAlone) {
  const auto squeeze = [](Parameters more, std::vector<int64_t> dims) {
    more.push_back(bind("x", floats({1, 2, 1}, {1, 2})));
    return evaluate("squeeze", std::move(more), {f32(std::move(dims))});
  };
  expect_values(squeeze({}, {2}), {1, 2});
  expect_values(squeeze({bind("axes", ints({2}, {0, 1}))}, {2, 1}), {1, 2});
  expect_values(squeeze({bind("axes", ints({1}, {-1}))}, {1, 2}), {1, 2});
}
TEST(MilShape, ExpandDimsCountsInTheResult) {
  expect_values(evaluate("expand_dims",
                         {bind("x", floats({2, 3}, counting(6))), bind("axes", ints({2}, {-1, 1}))},
                         {f32({2, 1, 3, 1})}),
                {0, 1, 2, 3, 4, 5});
}
TEST(MilShape, ConcatInterleavesAndLiftsScalars) {
  test::FunctionBuilder function;
  function.constant("a", floats({2, 2}, {1, 2, 3, 4}))
      .constant("b", floats({2, 2}, {5, 6, 7, 8}))
      .constant("s", ints({}, {9}))
      .op("concat",
          {bind_list("values", {"a", "b"}), bind("axis", integer(0)),
           bind("interleave", boolean(true))},
          {{"i", f32({4, 2})}})
      .op("concat", {bind_list("values", {"s", "s"}), bind("axis", integer(0))}, {{"l", i32({2})}})
      .op("stack", {bind_list("values", {"a", "b"}), bind("axis", integer(-1))},
          {{"st", f32({2, 2, 2})}})
      .returns({"i", "l", "st"});
  auto program = test::make_program({function.build()});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  const auto got = (*program)->run("main", {}, nullptr);
  expect_values(got, {1, 2, 5, 6, 3, 4, 7, 8}, 0, 0);
  expect_values(got, {9, 9}, 0, 1);
  expect_values(got, {1, 5, 2, 6, 3, 7, 4, 8}, 0, 2);
}
TEST(MilShape, SplitTilePadReverseFill) {
  const auto split = evaluate("split",
                              {bind("x", floats({2, 3}, counting(6))), bind("axis", integer(-1)),
                               bind("split_sizes", ints({2}, {1, 2}))},
                              {f32({2, 1}), f32({2, 2})});
  expect_values(split, {0, 3}, 0, 0);
  expect_values(split, {1, 2, 4, 5}, 0, 1);
  expect_error(evaluate("split",
                        {bind("x", floats({2, 3}, counting(6))), bind("axis", integer(1)),
                         bind("num_splits", integer(2))},
                        {f32({2, 1}), f32({2, 2})}),
               StatusCode::kBadInput, "num_splits");
  expect_values(
      evaluate("tile", {bind("x", floats({2, 2}, counting(4))), bind("reps", ints({2}, {2, 2}))},
               {f32({4, 4})}),
      {0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3});
  const auto pad = [](const char* mode) {
    return evaluate("pad",
                    {bind("x", floats({2, 3}, counting(6))), bind("pad", ints({2}, {2, 1})),
                     bind("mode", text(mode)), bind("constant_val", scalar(9))},
                    {f32({2, 6})});
  };
  expect_values(pad("constant"), {9, 9, 0, 1, 2, 9, 9, 9, 3, 4, 5, 9});
  expect_values(pad("reflect"), {2, 1, 0, 1, 2, 1, 5, 4, 3, 4, 5, 4});
  expect_values(pad("replicate"), {0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 5, 5});
  expect_error(pad("circular"), StatusCode::kBadInput, "circular");
  expect_values(evaluate("reverse", {bind("x", floats({2, 2}, counting(4)))}, {f32({2, 2})}),
                {3, 2, 1, 0});
  expect_values(evaluate("fill", {bind("shape", ints({2}, {1, 2})), bind("value", integer(7))},
                         {i32({1, 2})}),
                {7, 7});
  expect_error(
      evaluate("fill", {bind("shape", ints({1}, {-1})), bind("value", integer(7))}, {i32({-1})}),
      StatusCode::kBadInput, "shape");
  const auto range = [](float start, float end, float step, std::vector<int64_t> dims) {
    return evaluate(
        "range_1d",
        {bind("start", scalar(start)), bind("end", scalar(end)), bind("step", scalar(step))},
        {f32(std::move(dims))});
  };
  expect_values(range(0, 1, 0.4f, {-1}), {0, 0.4f, 0.8f}, 1e-6);
  expect_values(range(3, 0, -1, {3}), {3, 2, 1});
  expect_values(range(3, 0, 1, {0}), {});
}

// ---- reductions and ordering

TEST(MilReduce, AxesInAnyOrderAndOverIntegers) {
  const auto reduce = [](const char* op, mil::ValueData x, std::vector<int32_t> axes, bool keep,
                         mil::Type out) {
    const auto n = static_cast<int64_t>(axes.size());
    return evaluate(
        op,
        {bind("x", std::move(x)), bind("axes", ints({n}, axes)), bind("keep_dims", boolean(keep))},
        {std::move(out)});
  };
  const auto x = [] { return floats({2, 3, 2}, counting(12)); };
  expect_values(reduce("reduce_sum", x(), {2, 0}, false, f32({3})), {14, 22, 30});
  expect_values(reduce("reduce_max", x(), {1}, true, f32({2, 1, 2})), {4, 5, 10, 11});
  expect_values(reduce("reduce_mean", x(), {0, 1, 2}, false, f32({})), {5.5});
  expect_values(reduce("reduce_prod", ints({3}, {2, 3, -4}), {0}, false, i32({})), {-24});
  expect_values(reduce("reduce_l1_norm", floats({2}, {-1, 2}), {0}, false, f32({})), {3});
  expect_values(reduce("reduce_log_sum_exp", floats({2}, {1000, 1000}), {0}, false, f32({})),
                {1000 + std::log(2.0)}, 1e-4);
  expect_values(reduce("reduce_log_sum", floats({2}, {1, 1}), {0}, false, f32({})), {std::log(2.0)},
                1e-6);
  expect_error(reduce("reduce_sum", x(), {3}, false, f32({})), StatusCode::kBadInput, "axes");
  expect_error(reduce("reduce_sum", x(), {1, 1}, false, f32({})), StatusCode::kBadInput, "twice");
}
TEST(MilReduce, TiesTakeTheLowestIndex) {
  const auto x = [] { return floats({2, 4}, {1, 3, 3, 0, 5, 5, 2, 2}); };
  expect_values(evaluate("reduce_argmax", {bind("x", x())}, {i32({2})}), {1, 0});
  expect_values(evaluate("reduce_argmin",
                         {bind("x", x()), bind("axis", integer(1)),
                          bind("keep_dims", boolean(true)), bind("output_dtype", text("uint16"))},
                         {of(DType::kU16, {2, 1})}),
                {3, 2});
  const auto top =
      evaluate("topk", {bind("x", x()), bind("k", integer(3))}, {f32({2, 3}), i32({2, 3})});
  expect_values(top, {3, 3, 1, 5, 5, 2}, 0, 0);
  expect_values(top, {1, 2, 0, 0, 1, 2}, 0, 1);
  const auto low = evaluate("topk",
                            {bind("x", x()), bind("k", integer(1)), bind("axis", integer(0)),
                             bind("ascending", boolean(true))},
                            {f32({1, 4}), i32({1, 4})});
  expect_values(low, {1, 3, 2, 0}, 0, 0);
  expect_values(low, {0, 0, 1, 0}, 0, 1);
  expect_values(
      evaluate("argsort", {bind("x", x()), bind("ascending", boolean(true))}, {i32({2, 4})}),
      {3, 0, 1, 2, 2, 3, 0, 1});
  // Enough equal values that an unstable sort would mix them up.
  std::vector<double> in_order;
  for (int i = 0; i < 50; ++i) in_order.push_back(i);
  expect_values(
      evaluate("argsort", {bind("x", floats({50}, std::vector<float>(50, 1.0f)))}, {i32({50})}),
      in_order);
  // f32 cannot tell these two integers apart.
  expect_values(evaluate("reduce_argmax", {bind("x", ints({2}, {16777216, 16777217}))}, {i32({})}),
                {1});
}
TEST(MilReduce, CumulativeSums) {
  const auto cumsum = [](int32_t axis, bool exclusive, bool reverse) {
    return evaluate("cumsum",
                    {bind("x", floats({2, 3}, counting(6))), bind("axis", integer(axis)),
                     bind("exclusive", boolean(exclusive)), bind("reverse", boolean(reverse))},
                    {f32({2, 3})});
  };
  expect_values(cumsum(0, false, false), {0, 1, 2, 3, 5, 7});
  expect_values(cumsum(-1, true, false), {0, 0, 1, 0, 3, 7});
  expect_values(cumsum(1, false, true), {3, 3, 2, 12, 9, 5});
  expect_values(cumsum(1, true, true), {3, 2, 0, 9, 5, 0});
}
TEST(MilReduce, Normalisation) {
  expect_values(evaluate("layer_norm",
                         {bind("x", floats({2, 2}, {1, 3, -2, 2})), bind("axes", ints({1}, {-1})),
                          bind("gamma", floats({2}, {1, 2})), bind("beta", floats({2}, {0, 1})),
                          bind("epsilon", scalar(0))},
                         {f32({2, 2})}),
                {-1, 3, -1, 3}, 1e-6);
  expect_values(evaluate("softmax",
                         {bind("x", floats({2, 2}, {0, 1000, 0, -kInf})), bind("axis", integer(0))},
                         {f32({2, 2})}),
                {0.5, 1, 0.5, 0});
  expect_values(evaluate("band_part",
                         {bind("x", floats({3, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1})),
                          bind("lower", integer(1)), bind("upper", integer(0))},
                         {f32({3, 3})}),
                {1, 0, 0, 1, 1, 0, 0, 1, 1});
  expect_values(
      evaluate("l2_norm",
               {bind("x", floats({2, 1, 1, 2}, {3, 4, 0, 0})), bind("epsilon", scalar(1e-6f))},
               {f32({2, 1, 1, 2})}),
      {0.6, 0.8, 0, 0}, 1e-6);
}

// ---- gather and scatter

TEST(MilGather, BatchDims) {
  // x [2, 3, 2], indices [2, 2] along axis 1, one list per batch
  expect_values(evaluate("gather",
                         {bind("x", floats({2, 3, 2}, counting(12))),
                          bind("indices", ints({2, 2}, {2, 0, 1, -1})), bind("axis", integer(1)),
                          bind("batch_dims", integer(1))},
                         {f32({2, 2, 2})}),
                {4, 5, 0, 1, 8, 9, 10, 11});
  // batch_dims 0: every index for every outer row
  expect_values(evaluate("gather",
                         {bind("x", floats({2, 3}, counting(6))), bind("indices", integer(1)),
                          bind("axis", integer(-1))},
                         {f32({2})}),
                {1, 4});
  expect_error(evaluate("gather",
                        {bind("x", floats({2, 3}, counting(6))), bind("indices", ints({1}, {3})),
                         bind("axis", integer(1)), bind("validate_indices", boolean(false))},
                        {f32({2, 1})}),
               StatusCode::kBadInput, "holds 3 for an axis of 3");
}
TEST(MilGather, AlongAxisAndNd) {
  expect_values(evaluate("gather_along_axis",
                         {bind("x", floats({2, 3}, counting(6))),
                          bind("indices", ints({2, 2}, {2, 0, 1, 1})), bind("axis", integer(1))},
                         {f32({2, 2})}),
                {2, 0, 4, 4});
  expect_values(evaluate("gather_nd",
                         {bind("x", floats({2, 2, 2}, counting(8))),
                          bind("indices", ints({2, 2}, {1, 0, 0, 1}))},
                         {f32({2, 2})}),
                {4, 5, 2, 3});
  expect_values(evaluate("gather_nd",
                         {bind("x", floats({2, 2, 2}, counting(8))),
                          bind("indices", ints({2, 1}, {1, 0})), bind("batch_dims", integer(1))},
                         {f32({2, 2})}),
                {2, 3, 4, 5});
}
TEST(MilScatter, Modes) {
  const auto scatter = [](const char* mode) {
    return evaluate(
        "scatter",
        {bind("data", floats({3, 2}, {1, 2, 3, 4, 5, 6})), bind("indices", ints({2}, {2, 2})),
         bind("updates", floats({2, 2}, {10, 20, 2, 4})), bind("axis", integer(0)),
         bind("mode", text(mode))},
        {f32({3, 2})});
  };
  expect_values(scatter("update"), {1, 2, 3, 4, 2, 4});  // the later update wins
  expect_values(scatter("add"), {1, 2, 3, 4, 17, 30});
  expect_values(scatter("mul"), {1, 2, 3, 4, 100, 480});
  expect_values(scatter("max"), {1, 2, 3, 4, 10, 20});
  expect_values(scatter("min"), {1, 2, 3, 4, 2, 4});
  expect_values(scatter("sub"), {1, 2, 3, 4, -7, -18});
  expect_values(scatter("div"), {1, 2, 3, 4, 0.25, 0.075}, 1e-6);
  expect_error(scatter("xor"), StatusCode::kBadInput, "xor");
  expect_values(evaluate("scatter_nd",
                         {bind("data", ints({2, 2}, {1, 2, 3, 4})),
                          bind("indices", ints({2, 2}, {1, 1, 0, 0})),
                          bind("updates", ints({2}, {7, 8})), bind("mode", text("update"))},
                         {i32({2, 2})}),
                {8, 2, 3, 7});
  expect_values(
      evaluate("scatter_along_axis",
               {bind("data", floats({2, 2}, {1, 2, 3, 4})), bind("indices", ints({1, 2}, {1, 0})),
                bind("updates", floats({1, 2}, {10, 20})), bind("axis", integer(0)),
                bind("mode", text("add"))},
               {f32({2, 2})}),
      {1, 22, 13, 4});
}
TEST(MilScatter, OneHotOnAnyAxis) {
  expect_values(evaluate("one_hot",
                         {bind("indices", ints({3}, {1, 5, 0})),
                          bind("one_hot_vector_size", integer(2)), bind("axis", integer(0))},
                         {i32({2, 3})}),
                {0, 0, 1, 1, 0, 0});
}

// ---- products

TEST(MilLinear, VectorsAndTransposes) {
  const auto matmul = [](mil::ValueData x, mil::ValueData y, bool tx, bool ty,
                         std::vector<int64_t> dims) {
    return evaluate("matmul",
                    {bind("x", std::move(x)), bind("y", std::move(y)),
                     bind("transpose_x", boolean(tx)), bind("transpose_y", boolean(ty))},
                    {f32(std::move(dims))});
  };
  expect_values(matmul(floats({2}, {1, 2}), floats({2, 2}, {1, 2, 3, 4}), false, false, {2}),
                {7, 10});
  expect_values(matmul(floats({2, 2}, {1, 2, 3, 4}), floats({2}, {1, 2}), false, false, {2}),
                {5, 11});
  expect_values(matmul(floats({2}, {1, 2}), floats({2}, {3, 4}), false, false, {}), {11});
  expect_values(matmul(floats({3, 1}, {1, 2, 3}), floats({1, 3}, {1, 1, 2}), true, true, {1, 1}),
                {9});
  expect_error(
      matmul(floats({2, 3}, counting(6)), floats({2, 3}, counting(6)), false, false, {2, 3}),
      StatusCode::kBadInput, "do not fit");
}
TEST(MilLinear, EinsumBroadcastsSizeOne) {
  test::FunctionBuilder function;
  function.constant("x", floats({2, 3, 2}, counting(12)))
      .constant("y", floats({2, 1, 2}, {1, 0, 2, 1}))
      .op("einsum", {bind_list("values", {"x", "y"}), bind("equation", text("chw, whr -> chr"))},
          {{"z", f32({2, 3, 2})}})
      .returns({"z"});
  auto program = test::make_program({function.build()});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  // z[c,h,r] = x[c,h,0] * y[0,r] + x[c,h,1] * y[1,r]
  expect_values((*program)->run("main", {}, nullptr), {2, 1, 8, 3, 14, 5, 20, 7, 26, 9, 32, 11});
}
TEST(MilLinear, ConvolutionAgainstTheSum) {
  // 2 groups, stride 2, dilation 2 on one axis, padding on both: compared with the definition.
  const int64_t n = 2, cin = 4, h = 5, w = 6, cout = 6, kh = 3, kw = 2;
  const int64_t stride[2] = {2, 1}, dilation[2] = {1, 2}, pad[4] = {1, 0, 2, 1};
  const int64_t oh = (h + pad[0] + pad[1] - ((kh - 1) * dilation[0] + 1)) / stride[0] + 1;
  const int64_t ow = (w + pad[2] + pad[3] - ((kw - 1) * dilation[1] + 1)) / stride[1] + 1;
  const auto wave = [](int64_t count, float f) {
    std::vector<float> out;
    for (int64_t i = 0; i < count; ++i) out.push_back(std::sin(f * static_cast<float>(i)));
    return out;
  };
  const std::vector<float> x = wave(n * cin * h * w, 0.7f),
                           k = wave(cout * cin / 2 * kh * kw, 1.3f);
  const std::vector<float> bias = wave(cout, 2.1f);
  std::vector<double> want;
  for (int64_t b = 0; b < n; ++b)
    for (int64_t o = 0; o < cout; ++o)
      for (int64_t r = 0; r < oh; ++r)
        for (int64_t c = 0; c < ow; ++c) {
          double sum = bias[static_cast<size_t>(o)];
          for (int64_t i = 0; i < cin / 2; ++i)
            for (int64_t a = 0; a < kh; ++a)
              for (int64_t e = 0; e < kw; ++e) {
                const int64_t y = r * stride[0] + a * dilation[0] - pad[0];
                const int64_t z = c * stride[1] + e * dilation[1] - pad[2];
                if (y < 0 || y >= h || z < 0 || z >= w) continue;
                const int64_t channel = o / (cout / 2) * (cin / 2) + i;
                sum += x[static_cast<size_t>(((b * cin + channel) * h + y) * w + z)] *
                       k[static_cast<size_t>(((o * cin / 2 + i) * kh + a) * kw + e)];
              }
          want.push_back(sum);
        }
  expect_values(evaluate("conv",
                         {bind("x", floats({n, cin, h, w}, x)),
                          bind("weight", floats({cout, cin / 2, kh, kw}, k)),
                          bind("bias", floats({cout}, bias)), bind("strides", ints({2}, {2, 1})),
                          bind("dilations", ints({2}, {1, 2})), bind("groups", integer(2)),
                          bind("pad_type", text("custom")), bind("pad", ints({4}, {1, 0, 2, 1}))},
                         {f32({n, cout, oh, ow})}),
                want, 1e-5);
  // same: the odd element of padding goes behind, same_lower: in front
  const auto same = [](const char* type) {
    return evaluate("conv",
                    {bind("x", floats({1, 1, 3}, {1, 2, 3})),
                     bind("weight", floats({1, 1, 2}, {1, 10})), bind("pad_type", text(type))},
                    {f32({1, 1, 3})});
  };
  expect_values(same("same"), {21, 32, 3});
  expect_values(same("same_lower"), {10, 21, 32});
}

TEST(MilAttention, SkippingMaskedKeysChangesNothing) {
  const int64_t heads = 2, queries = 3, keys = 37, width = 8;
  const auto wave = [](int64_t count, float f) {
    std::vector<float> out;
    for (int64_t i = 0; i < count; ++i) out.push_back(std::sin(f * static_cast<float>(i)));
    return out;
  };
  // Only 5 keys are open; in the second variant one masked key is so long that -3e4 does not hide
  // it.
  for (const float length : {1.0f, 1e5f}) {
    std::vector<float> q = wave(heads * queries * width, 0.3f),
                       k = wave(heads * keys * width, 0.7f);
    const std::vector<float> v = wave(heads * keys * width, 1.1f);
    for (size_t i = 0; i < 8; ++i) k[20 * 8 + i] = q[i] * length;
    std::vector<float> mask(static_cast<size_t>(queries * keys), -3e4f);
    for (int64_t t = 0; t < queries; ++t)
      for (int64_t s = 0; s < 3 + t; ++s) mask[static_cast<size_t>(t * keys + s)] = 0;
    std::vector<double> want;
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t t = 0; t < queries; ++t) {
        std::vector<double> p(static_cast<size_t>(keys));
        double top = -1e300, sum = 0;
        for (int64_t s = 0; s < keys; ++s) {
          double dot = 0;
          for (int64_t i = 0; i < width; ++i)
            dot += static_cast<double>(q[static_cast<size_t>((h * queries + t) * width + i)]) *
                   k[static_cast<size_t>((h * keys + s) * width + i)];
          p[static_cast<size_t>(s)] =
              dot / std::sqrt(8.0) + mask[static_cast<size_t>(t * keys + s)];
          top = std::max(top, p[static_cast<size_t>(s)]);
        }
        for (double& e : p) sum += e = std::exp(e - top);
        for (int64_t i = 0; i < width; ++i) {
          double out = 0;
          for (int64_t s = 0; s < keys; ++s)
            out += p[static_cast<size_t>(s)] / sum *
                   v[static_cast<size_t>((h * keys + s) * width + i)];
          want.push_back(out);
        }
      }
    expect_values(evaluate("scaled_dot_product_attention",
                           {bind("query", floats({1, heads, queries, width}, q)),
                            bind("key", floats({1, heads, keys, width}, k)),
                            bind("value", floats({1, heads, keys, width}, v)),
                            bind("attn_mask", floats({1, 1, queries, keys}, mask))},
                           {f32({1, heads, queries, width})}),
                  want, length > 1 ? 2e-2 : 1e-6);
  }
}
TEST(MilAttention, MaskedInfinitiesAreNotHidden) {
  // 0 * infinity: what the device would compute must be seen.
  const auto run = [](float last) {
    return evaluate("scaled_dot_product_attention",
                    {bind("query", floats({1, 1, 1}, {1})), bind("key", floats({1, 2, 1}, {1, 1})),
                     bind("value", floats({1, 2, 1}, {5, last})),
                     bind("attn_mask", floats({1, 2}, {0, -3e4f}))},
                    {f32({1, 1, 1})});
  };
  expect_values(run(1), {5});
  expect_values(run(kInf), {kNan});
}

// ---- compressed constants

TEST(MilConstexpr, Int4IsSigned) {
  expect_values(evaluate("constexpr_blockwise_shift_scale",
                         {bind("data", test::codes(DType::kI4, {2, 3}, {-8, 7, -1, 1, 2, 3})),
                          bind("scale", floats({2, 1}, {0.5f, 0.25f}))},
                         {f32({2, 3})}),
                {-4, 3.5, -0.5, 0.25, 0.5, 0.75});
}
TEST(MilConstexpr, CodesRunAcrossRows) {
  // 3-bit codes, 3 columns: rows do not start at byte boundaries.
  expect_values(
      evaluate("constexpr_lut_to_dense",
               {bind("indices", test::codes(DType::kU3, {3, 3}, {0, 1, 2, 3, 4, 5, 6, 7, 0})),
                bind("lut", floats({1, 1, 8, 1}, counting(8)))},
               {f32({3, 3})}),
      {0, 1, 2, 3, 4, 5, 6, 7, 0});
}
TEST(MilConstexpr, GroupsOnBothAxes) {
  // 2 row groups and 2 column groups: four tables of two entries
  expect_values(
      evaluate("constexpr_lut_to_dense",
               {bind("indices", test::codes(DType::kU1, {2, 4}, {0, 1, 0, 1, 1, 0, 1, 0})),
                bind("lut", floats({2, 2, 2, 1}, counting(8)))},
               {f32({2, 4})}),
      {0, 1, 2, 3, 5, 4, 7, 6});
}
TEST(MilConstexpr, VectorsAlongEitherAxis) {
  const auto lut = [] { return floats({1, 1, 2, 2}, {1, 2, 3, 4}); };
  const auto look_up = [&](int32_t axis, std::vector<int64_t> dims) {
    return evaluate("constexpr_lut_to_dense",
                    {bind("indices", test::codes(DType::kU1, {2, 2}, {0, 1, 1, 0})),
                     bind("lut", lut()), bind("vector_axis", integer(axis))},
                    {f32(std::move(dims))});
  };
  expect_values(look_up(1, {2, 4}), {1, 2, 3, 4, 3, 4, 1, 2});
  expect_values(look_up(0, {4, 2}), {1, 3, 2, 4, 3, 1, 4, 2});
}
TEST(MilConstexpr, BlocksAndOffsets) {
  expect_values(
      evaluate("constexpr_blockwise_shift_scale",
               {bind("data", immediate<uint8_t>(DType::kU8, {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8})),
                bind("scale", floats({1, 2}, {1, 10})), bind("offset", floats({1, 2}, {0.5f, 4}))},
               {f32({2, 4})}),
      {0.5, 1.5, -10, 0, 4.5, 5.5, 30, 40});
  expect_error(evaluate("constexpr_blockwise_shift_scale",
                        {bind("data", immediate<uint8_t>(DType::kU8, {1, 4}, {1, 2, 3, 4})),
                         bind("scale", floats({1, 3}, {1, 1, 1}))},
                        {f32({1, 4})}),
               StatusCode::kBadInput, "scale");
}
TEST(MilConstexpr, SparseNeedsOneValuePerOne) {
  const auto sparse = [](std::vector<float> values) {
    const auto n = static_cast<int64_t>(values.size());
    return evaluate("constexpr_sparse_to_dense",
                    {bind("nonzero_data", floats({n}, values)),
                     bind("mask", test::codes(DType::kU1, {2, 2}, {0, 1, 1, 0}))},
                    {f32({2, 2})});
  };
  expect_values(sparse({5, 6}), {0, 5, 6, 0});
  expect_error(sparse({5}), StatusCode::kBadInput, "mask");
}

}  // namespace
}  // namespace pome
