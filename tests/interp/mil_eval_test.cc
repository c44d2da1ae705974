// Programs as a whole: names, constants, states, types, errors.
#include "interp/mil_eval.h"

#include <gtest/gtest.h>

#include <map>

#include "interp/mil_builder.h"
#include "tensor/half.h"

namespace pome {
namespace {

using test::bind;
using test::bind_list;
using test::floats;
using test::FunctionBuilder;
using test::immediate;
using test::ints;
using test::make_program;
using test::state_type;
using test::tensor_type;

mil::Type f32(std::vector<int64_t> dims) { return tensor_type(DType::kF32, std::move(dims)); }
mil::Type f16(std::vector<int64_t> dims) { return tensor_type(DType::kF16, std::move(dims)); }

void expect_refused(const FunctionBuilder& function, StatusCode code, const std::string& part) {
  auto program = make_program({FunctionBuilder(function).build()});
  ASSERT_FALSE(program.ok());
  EXPECT_EQ(program.status().code(), code);
  EXPECT_NE(program.status().to_string().find(part), std::string::npos)
      << program.status().to_string();
}

TEST(MilProgram, UnknownOperationsNameTheirPlace) {
  FunctionBuilder function("decode");
  function.input("x", f32({1})).op("warp", {bind("x", "x")}, {{"y", f32({1})}}).returns({"y"});
  expect_refused(function, StatusCode::kUnsupported, "'warp'");
  expect_refused(function, StatusCode::kUnsupported, "value 'y'");
  expect_refused(function, StatusCode::kUnsupported, "function 'decode'");
}
TEST(MilProgram, ParametersAreChecked) {
  const auto unary = [](std::string op, test::Parameters inputs) {
    FunctionBuilder function;
    function.input("x", f32({1})).op(std::move(op), std::move(inputs), {{"y", f32({1})}});
    return function.returns({"y"});
  };
  expect_refused(unary("exp", {}), StatusCode::kBadInput, "'x' is missing");
  expect_refused(unary("exp", {bind("x", "x"), bind("speed", "x")}), StatusCode::kUnsupported,
                 "'speed'");
  expect_refused(unary("exp", {bind_list("x", {"x", "x"})}), StatusCode::kBadInput, "2 values");
  expect_refused(unary("exp", {bind("x", "later")}), StatusCode::kBadInput, "before it is defined");
  FunctionBuilder twice;
  twice.input("x", f32({1})).op("exp", {bind("x", "x")}, {{"x", f32({1})}}).returns({"x"});
  expect_refused(twice, StatusCode::kBadInput, "defined twice");
  FunctionBuilder many;
  many.input("x", f32({1})).op("exp", {bind("x", "x")}, {{"y", f32({1})}, {"z", f32({1})}});
  expect_refused(many, StatusCode::kBadInput, "2 outputs");
  FunctionBuilder absent;
  expect_refused(absent.returns({"y"}), StatusCode::kBadInput, "'y'");
  FunctionBuilder runtime;
  runtime.input("x", f32({1, 1}))
      .op("constexpr_blockwise_shift_scale",
          {bind("data", "x"), bind("scale", floats({1, 1}, {1}))}, {{"y", f32({1, 1})}})
      .returns({"y"});
  expect_refused(runtime, StatusCode::kBadInput, "must be a constant");
}
TEST(MilProgram, DeclaredTypesAreHeldAgainstComputedOnes) {
  const auto run = [](mil::Type declared) {
    FunctionBuilder function;
    function.input("x", f16({2, 3})).op("exp", {bind("x", "x")}, {{"y", std::move(declared)}});
    auto program = make_program({function.returns({"y"}).build()});
    EXPECT_TRUE(program.ok());
    return (*program)->run("main", {{"x", Tensor::zeros(DType::kF32, {2, 3})}}, nullptr);
  };
  EXPECT_TRUE(run(f16({2, 3})).ok());
  EXPECT_TRUE(run(f16({-1, 3})).ok());
  for (const mil::Type& wrong : {f16({3, 2}), f16({6}), f32({2, 3})}) {
    const auto got = run(wrong);
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.status().code(), StatusCode::kBadInput);
    EXPECT_NE(got.status().to_string().find("operation 'exp', value 'y'"), std::string::npos)
        << got.status().to_string();
  }
  FunctionBuilder constant;
  constant.constant("c", floats({2}, {1, 2}));
  constant.last().outputs[0].type = f32({3});
  expect_refused(constant.returns({"c"}), StatusCode::kBadInput, "'c'");
}
TEST(MilProgram, WrongInputsSayWhatIsExpected) {
  FunctionBuilder function;
  function.input("x", f16({2})).input("n", tensor_type(DType::kI32, {1}));
  function.op("identity", {bind("x", "x")}, {{"y", f16({2})}}).returns({"y"});
  auto program = make_program({function.build()});
  ASSERT_TRUE(program.ok());
  const Tensor x = Tensor::zeros(DType::kF32, {2}), n = Tensor::from_i32({1}, {1});
  EXPECT_TRUE((*program)->run("main", {{"x", x}, {"n", n}}, nullptr).ok());
  EXPECT_TRUE((*program)->run("main", {{"x", x.to(DType::kF16)}, {"n", n}}, nullptr).ok());
  const auto expect_usage = [&](const NamedTensors& inputs, const std::string& part) {
    const auto got = (*program)->run("main", inputs, nullptr);
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.status().code(), StatusCode::kUsage);
    EXPECT_NE(got.status().to_string().find(part), std::string::npos) << got.status().to_string();
  };
  expect_usage({{"x", x}}, "input 'n'");
  expect_usage({{"x", Tensor::zeros(DType::kF32, {3})}, {"n", n}}, "[3]");
  expect_usage({{"x", n}, {"n", n}}, "input 'x'");
  expect_usage({{"x", x}, {"n", n}, {"z", n}}, "'z'");
  expect_usage({{"x", x}, {"n", x.to(DType::kI64)}}, "input 'n'");
  const auto got = (*program)->run("other", {}, nullptr);
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.status().code(), StatusCode::kUsage);
}

TEST(MilProgram, RoundsOnlyFp16Values) {
  const auto run = [](bool round) {
    FunctionBuilder function;
    function.input("x", f16({1})).input("w", f32({1}));
    function.op("mul", {bind("x", "x"), bind("y", "x")}, {{"h", f16({1})}})
        .op("mul", {bind("x", "w"), bind("y", "w")}, {{"s", f32({1})}})
        .returns({"h", "s"});
    MilOptions options;
    options.round_f16 = round;
    auto program = make_program({function.build()}, options);
    EXPECT_TRUE(program.ok());
    const Tensor third = Tensor::from_f32({1}, {1.0f / 3});
    auto got = (*program)->run("main", {{"x", third}, {"w", third}}, nullptr);
    EXPECT_TRUE(got.ok());
    EXPECT_EQ(third.f32()[0], 1.0f / 3);  // the caller's tensor is not touched
    return std::pair((*got)[0].second.f32()[0], (*got)[1].second.f32()[0]);
  };
  const float third = 1.0f / 3, half_third = round_to_f16(third);
  EXPECT_EQ(run(false), std::pair(third * third, third * third));
  EXPECT_EQ(run(true), std::pair(round_to_f16(half_third * half_third), third * third));
  EXPECT_NE(round_to_f16(half_third * half_third), half_third * half_third);
}

// Two weights of 256 x 512, one palettised, whose products are chained.
mil::Function two_large_weights() {
  constexpr int64_t kRows = 512, kColumns = 256;
  std::vector<float> dense;
  std::vector<int> indices;
  for (int i = 0; i < kRows * kColumns; ++i) {
    dense.push_back(static_cast<float>(i % 17 - 8) / 64);
    indices.push_back(i * 7 % 4);
  }
  FunctionBuilder function;
  function.input("x", f32({1, kColumns}));
  function.constant("plain", floats({kRows, kColumns}, dense));
  function
      .op("constexpr_lut_to_dense",
          {bind("indices", test::codes(DType::kU2, {kColumns, kRows}, indices)),
           bind("lut", floats({1, 1, 4, 1}, {-0.5f, -0.1f, 0.2f, 0.4f}))},
          {{"palette", f32({kColumns, kRows})}})
      .op("linear", {bind("x", "x"), bind("weight", "plain")}, {{"h", f32({1, kRows})}})
      .op("linear", {bind("x", "h"), bind("weight", "palette")}, {{"y", f32({1, kColumns})}})
      .returns({"y", "palette"});
  return function.build();
}

TEST(MilProgram, WeightsBeyondTheBudgetAreDecodedOnDemandToTheSameValues) {
  std::vector<float> x(256);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 5) - 2;
  const NamedTensors inputs = {{"x", Tensor::from_f32({1, 256}, x)}};
  std::vector<NamedTensors> results;
  for (const uint64_t budget : {~uint64_t{0}, uint64_t{600'000}, uint64_t{0}}) {
    MilOptions options;
    options.constant_budget = budget;
    auto program = make_program({two_large_weights()}, options);
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    for (int call = 0; call < 2; ++call) {
      auto got = (*program)->run("main", inputs, nullptr);
      ASSERT_TRUE(got.ok()) << got.status().to_string();
      results.push_back(std::move(*got));
    }
    const auto palette = (*program)->constant("palette");
    ASSERT_TRUE(palette.ok());
    EXPECT_EQ(palette->shape(), (Shape{256, 512}));
    EXPECT_EQ(palette->f32()[1], 0.4f);
    EXPECT_FALSE((*program)->constant("h")->defined());
  }
  for (const NamedTensors& result : results)
    for (size_t i = 0; i < result.size(); ++i) {
      const auto got = result[i].second.f32(), expected = results[0][i].second.f32();
      EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin(), expected.end()));
    }
}

TEST(MilProgram, DamageInAWeightDecodedOnDemandIsNamed) {
  mil::Function function = two_large_weights();
  for (mil::Operation& op : function.operations)
    for (auto& [name, bindings] : op.inputs)
      if (name == "lut") bindings = {mil::Binding(floats({1, 1, 2, 1}, {0.0f, 1.0f}))};
  MilOptions options;
  options.constant_budget = 0;
  auto program = make_program({function}, options);
  ASSERT_TRUE(program.ok());
  const auto got = (*program)->run("main", {{"x", Tensor::zeros(DType::kF32, {1, 256})}}, nullptr);
  ASSERT_FALSE(got.ok());
  EXPECT_NE(got.status().to_string().find("palette"), std::string::npos)
      << got.status().to_string();
}

// k[position] = x, read back, as decoders do it; then a second update of the same state.
FunctionBuilder cache_function(const std::string& name) {
  FunctionBuilder function(name);
  function.input("x", f16({1, 2})).input("at", tensor_type(DType::kI32, {1}));
  function.input("k", state_type(DType::kF16, {3, 2}));
  function.constant("zero", ints({1}, {0})).constant("one", ints({1}, {1}));
  function.constant("mask", immediate<uint8_t>(DType::kBool, {2}, {0, 1}));
  function.op("read_state", {bind("input", "k")}, {{"old", f16({3, 2})}})
      .op("add", {bind("x", "at"), bind("y", "one")}, {{"next", tensor_type(DType::kI32, {1})}})
      .op("concat", {bind_list("values", {"at", "zero"}), bind("axis", ints({}, {0}))},
          {{"begin", tensor_type(DType::kI32, {2})}})
      .op("concat", {bind_list("values", {"next", "zero"}), bind("axis", ints({}, {0}))},
          {{"end", tensor_type(DType::kI32, {2})}})
      .op("slice_update",
          {bind("x", "old"), bind("update", "x"), bind("begin", "begin"), bind("end", "end"),
           bind("end_mask", "mask")},
          {{"new", f16({3, 2})}})
      .write("k", "new")
      .op("read_state", {bind("input", "k")}, {{"all", f16({3, 2})}})
      .op("reduce_sum", {bind("x", "all"), bind("axes", ints({1}, {0}))}, {{"sum", f16({2})}})
      .returns({"sum"});
  return function;
}
TEST(MilState, SharedByFunctionsAndUpdatedInPlace) {
  auto program = make_program({cache_function("a").build(), cache_function("b").build()});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  NamedTensors states;
  const auto step = [&](const char* function, int32_t at, float value) {
    auto got = (*program)->run(
        function,
        {{"x", Tensor::from_f32({1, 2}, {value, -value})}, {"at", Tensor::from_i32({1}, {at})}},
        &states);
    EXPECT_TRUE(got.ok()) << got.status().to_string();
    return got.ok() ? got->front().second.f32()[0] : -1;
  };
  EXPECT_EQ(step("a", 0, 1), 1);  // a missing state starts as zeros
  ASSERT_EQ(states.size(), 1u);
  const std::byte* before = states[0].second.bytes().data();
  EXPECT_EQ(step("b", 2, 10), 11);
  EXPECT_EQ(states[0].second.bytes().data(), before) << "the cache was copied";
  // A caller that keeps a snapshot keeps its values.
  const Tensor snapshot = states[0].second;
  EXPECT_EQ(step("a", 2, 100), 101);
  EXPECT_EQ(snapshot.f32()[4], 10);
  EXPECT_EQ(states[0].second.f32()[4], 100);
  EXPECT_EQ(states[0].second.f32()[5], -100);
}
TEST(MilState, AnEarlierReadKeepsItsValue) {
  FunctionBuilder function;
  function.input("k", state_type(DType::kF32, {2})).input("x", f32({2}));
  function.op("read_state", {bind("input", "k")}, {{"before", f32({2})}})
      .op("read_state", {bind("input", "k")}, {{"again", f32({2})}})
      .op("slice_update",
          {bind("x", "again"), bind("update", floats({1}, {7})), bind("begin", ints({1}, {0})),
           bind("end", ints({1}, {1}))},
          {{"new", f32({2})}})
      .write("k", "new")
      .write("k", "x")
      .op("read_state", {bind("input", "k")}, {{"last", f32({2})}})
      .returns({"before", "new", "last"});
  auto program = make_program({function.build()});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  NamedTensors states = {{"k", Tensor::from_f32({2}, {1, 2})},
                         {"other", Tensor::from_i32({1}, {3})}};
  const auto got = (*program)->run("main", {{"x", Tensor::from_f32({2}, {8, 9})}}, &states);
  ASSERT_TRUE(got.ok()) << got.status().to_string();
  EXPECT_EQ((*got)[0].second.f32()[0], 1);
  EXPECT_EQ((*got)[1].second.f32()[0], 7);
  EXPECT_EQ((*got)[1].second.f32()[1], 2);
  EXPECT_EQ((*got)[2].second.f32()[0], 8);
  EXPECT_EQ(states[0].second.f32()[1], 9);
  EXPECT_EQ(states[1].second.as<int32_t>()[0], 3);  // not ours: left alone
}
TEST(MilState, OnlyReadAndWriteMayNameIt) {
  FunctionBuilder use;
  use.input("k", state_type(DType::kF32, {2}))
      .op("exp", {bind("x", "k")}, {{"y", f32({2})}})
      .returns({"y"});
  expect_refused(use, StatusCode::kBadInput, "state 'k'");
  FunctionBuilder output;
  expect_refused(output.input("k", state_type(DType::kF32, {2})).returns({"k"}),
                 StatusCode::kBadInput, "'k'");
  FunctionBuilder read;
  read.input("x", f32({2})).op("read_state", {bind("input", "x")}, {{"y", f32({2})}});
  expect_refused(read.returns({"y"}), StatusCode::kBadInput, "must name a state");
  FunctionBuilder wrong;
  wrong.input("k", state_type(DType::kF32, {2})).input("x", f32({3}));
  auto program = make_program({wrong.write("k", "x").build()});
  ASSERT_TRUE(program.ok());
  NamedTensors states;
  const auto got = (*program)->run("main", {{"x", Tensor::zeros(DType::kF32, {3})}}, &states);
  ASSERT_FALSE(got.ok());
  EXPECT_NE(got.status().to_string().find("write_state"), std::string::npos);
  NamedTensors bad = {{"k", Tensor::zeros(DType::kF32, {5})}};
  const auto usage = (*program)->run("main", {{"x", Tensor::zeros(DType::kF32, {3})}}, &bad);
  ASSERT_FALSE(usage.ok());
  EXPECT_EQ(usage.status().code(), StatusCode::kUsage);
  EXPECT_TRUE(bad[0].second.defined()) << "a refused call must leave the states alone";
}

TEST(MilProgram, AValueGivenTwiceIsNotTaken) {
  FunctionBuilder function;
  function.input("x", f32({2}));
  function.op("exp", {bind("x", "x")}, {{"e", f32({2})}})
      .op("slice_update",
          {bind("x", "e"), bind("update", "e"), bind("begin", ints({1}, {0})),
           bind("end", ints({1}, {2}))},
          {{"y", f32({2})}})
      .returns({"y"});
  auto program = make_program({function.build()});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  const auto got = (*program)->run("main", {{"x", Tensor::zeros(DType::kF32, {2})}}, nullptr);
  ASSERT_TRUE(got.ok()) << got.status().to_string();
  EXPECT_EQ(got->front().second.f32()[1], 1);
}
TEST(MilProgram, ConstantsSurviveUpdates) {
  FunctionBuilder function;
  function.constant("c", floats({2}, {1, 2}));
  function
      .op("slice_update",
          {bind("x", "c"), bind("update", floats({1}, {7})), bind("begin", ints({1}, {0})),
           bind("end", ints({1}, {1}))},
          {{"y", f32({2})}})
      .returns({"y", "c"});
  auto program = make_program({function.build()});
  ASSERT_TRUE(program.ok());
  for (int i = 0; i < 2; ++i) {
    const auto got = (*program)->run("main", {}, nullptr);
    ASSERT_TRUE(got.ok());
    EXPECT_EQ((*got)[0].second.f32()[0], 7);
    EXPECT_EQ((*got)[1].second.f32()[0], 1);
  }
}
TEST(MilProgram, ObserverSeesValuesInOrder) {
  FunctionBuilder function;
  function.input("x", f32({1})).constant("c", floats({1}, {2}));
  function.op("add", {bind("x", "x"), bind("y", "c")}, {{"a", f32({1})}})
      .op("mul", {bind("x", "a"), bind("y", "a")}, {{"b", f32({1})}})
      .returns({"b"});
  auto program = make_program({function.build()});
  ASSERT_TRUE(program.ok());
  std::vector<std::pair<std::string, float>> seen;
  (*program)->set_observer([&](const std::string& name, const Tensor& value) {
    seen.emplace_back(name, value.f32()[0]);
  });
  ASSERT_TRUE((*program)->run("main", {{"x", Tensor::from_f32({1}, {1})}}, nullptr).ok());
  EXPECT_EQ(seen, (std::vector<std::pair<std::string, float>>{{"a", 3}, {"b", 9}}));
  (*program)->set_observer(nullptr);
  ASSERT_TRUE((*program)->run("main", {{"x", Tensor::from_f32({1}, {1})}}, nullptr).ok());
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
}  // namespace pome
