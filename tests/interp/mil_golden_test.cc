// Packages written by coremltools, with the values that coremltools or numpy computed for them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "interp/mil_eval.h"
#include "support/npy.h"

namespace pome {
namespace {

namespace fs = std::filesystem;
const std::string kGolden = POME_SOURCE_DIR "/../shared/golden/coreml/";

#define SKIP_WITHOUT_GOLDEN() \
  if (!fs::exists(kGolden)) GTEST_SKIP() << "no " << kGolden

std::unique_ptr<MilProgram> open(const std::string& name, bool round_f16, int threads = 2) {
  MilOptions options;
  options.threads = threads;
  options.round_f16 = round_f16;
  auto program = MilProgram::open(kGolden + name + ".mlpackage", options);
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  return program.ok() ? std::move(*program) : nullptr;
}
Tensor npy(const std::string& path) {
  auto tensor = test::read_npy(kGolden + path);
  EXPECT_TRUE(tensor.has_value()) << path;
  if (!tensor) return Tensor::zeros(DType::kF32, {0});
  return *tensor;
}
// |got - want| <= absolute + relative * |want|; NaN where NaN, infinities alike.
void expect_close(const Tensor& got, const Tensor& want, double absolute, double relative,
                  const std::string& what) {
  ASSERT_EQ(got.shape(), want.shape()) << what;
  const Tensor g = got.to(DType::kF64), w = want.to(DType::kF64);
  double worst = 0;
  for (size_t i = 0; i < g.as<double>().size(); ++i) {
    const double a = g.as<double>()[i], b = w.as<double>()[i];
    if (std::isnan(b)) {
      EXPECT_TRUE(std::isnan(a)) << what << " element " << i;
    } else if (std::isinf(b)) {
      EXPECT_EQ(a, b) << what << " element " << i;
    } else {
      worst = std::max(worst, std::isnan(a) ? 1e30 : std::fabs(a - b) - relative * std::fabs(b));
    }
  }
  EXPECT_LE(worst, absolute) << what;
}
std::map<std::string, Tensor> by_name(const NamedTensors& list) {
  return {list.begin(), list.end()};
}

constexpr double kEps16 = 1.0 / 1024;  // spacing of fp16 at 1

class Rounding : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Mil, Rounding, testing::Bool(),
                         [](const auto& p) { return p.param ? "fp16" : "f32"; });

TEST_P(Rounding, EveryOpThatCoremltoolsFolds) {
  SKIP_WITHOUT_GOLDEN();
  const auto program = open("ops_ios18", GetParam());
  ASSERT_NE(program, nullptr);
  const NamedTensors inputs = {{"x", npy("ops_expected/input_x.npy")},
                               {"ids", npy("ops_expected/input_ids.npy")},
                               {"img", npy("ops_expected/input_img.npy")}};
  const auto outputs = program->run("main", inputs, nullptr);
  ASSERT_TRUE(outputs.ok()) << outputs.status().to_string();
  auto got = by_name(*outputs);
  int compared = 0;
  for (const auto& file : fs::directory_iterator(kGolden + "ops_expected")) {
    const std::string name = file.path().stem();
    if (name.rfind("input_", 0) == 0) continue;
    ASSERT_TRUE(got.count(name)) << name;
    Tensor want = npy("ops_expected/" + name + ".npy").to(DType::kF32);
    if (name == "op_scatter_along_axis") {
      // The mode is "add", but coremltools folds every mode as "update".
      for (size_t i = 0; i < 8; ++i)
        want.mutable_as<float>()[i] += inputs[0].second.to(DType::kF32).f32()[i];
    }
    const bool exact = got[name].dtype() != DType::kF32;
    // coremltools rounds after each step inside an operation too.
    expect_close(got[name], want, exact ? 0 : 2 * kEps16, exact ? 0 : 2 * kEps16, name);
    ++compared;
    got.erase(name);
  }
  EXPECT_EQ(compared, 91);
  // What coremltools cannot fold is compared with the definition below.
  std::set<std::string> left;
  for (const auto& [name, tensor] : got) left.insert(name);
  EXPECT_EQ(left, (std::set<std::string>{"op_conv1x1", "op_gather_nd", "op_one_hot", "op_scatter",
                                         "op_scatter_nd", "op_silu"}));
  const Tensor x = inputs[0].second.to(DType::kF32);
  const auto at = [](const Tensor& t, size_t i) { return t.f32()[i]; };
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(at(got["op_silu"], i), at(x, i) / (1 + std::exp(-at(x, i))), kEps16);
    const size_t row = i / 8;
    for (const char* name : {"op_scatter", "op_scatter_nd"})
      EXPECT_EQ(at(got[name], i) == at(x, i), row != 1) << name << " element " << i;
    if (row == 1) {
      EXPECT_EQ(at(got["op_gather_nd"], i - 8), at(x, i));
    }
  }
  const int ids[] = {3, 0, 2, 1};
  for (size_t i = 0; i < 64; ++i)
    EXPECT_EQ(at(got["op_one_hot"], i), static_cast<int>(i % 16) == ids[i / 16] ? 1.0f : 0.0f);
}

TEST(MilGolden, EveryConstexprFormOfIos18) {
  SKIP_WITHOUT_GOLDEN();
  // Each linear sees the weight times the unit vectors, one call per column.
  const auto program = open("compress_ios18", true);
  ASSERT_NE(program, nullptr);
  std::map<std::string, std::string> weight_of;  // output -> constexpr value
  for (const mil::Operation& op : program->model().functions.front().operations) {
    if (op.type != "linear" && op.type != "matmul") continue;
    for (const auto& [name, bindings] : op.inputs)
      if (name == "weight" || (op.type == "matmul" && name == "y"))
        weight_of[op.outputs.front().name] = std::get<std::string>(bindings.front());
  }
  std::map<std::string, Tensor> dense;
  for (const auto& [output, weight] : weight_of)
    dense[output] = npy("compress_ios18_expected/main." + weight + ".npy").to(DType::kF32);
  ASSERT_EQ(dense.size(), 32u);
  for (int64_t column = 0; column < 32; ++column) {
    Tensor unit = Tensor::zeros(DType::kF32, {1, 32});
    unit.mutable_as<float>()[static_cast<size_t>(column)] = 1;
    const auto outputs = program->run("main", {{"x", unit}}, nullptr);
    ASSERT_TRUE(outputs.ok()) << outputs.status().to_string();
    for (const auto& [name, got] : *outputs) {
      const Tensor& w = dense.at(name);
      const bool rows = name.rfind("mm", 0) != 0;  // weight [Dout, Din], else y [Din, Dout]
      const int64_t inputs = rows ? w.dim(1) : w.dim(0), results = rows ? w.dim(0) : w.dim(1);
      if (column >= inputs) continue;
      ASSERT_EQ(got.count(), results) << name;
      for (int64_t i = 0; i < results; ++i) {
        const int64_t at = rows ? i * inputs + column : column * results + i;
        const float want = w.f32()[static_cast<size_t>(at)];
        EXPECT_NEAR(got.f32()[static_cast<size_t>(i)], want, kEps16 * std::fabs(want))
            << weight_of[name] << " [" << i << ", " << column << "]";
      }
    }
  }
}

// The parameters of iOS 16 stand in attributes; the dense weight is computed here from the file.
TEST(MilGolden, ConstexprFormOfIos16) {
  SKIP_WITHOUT_GOLDEN();
  const auto program = open("compress_ios16", false);
  ASSERT_NE(program, nullptr);
  const auto package = mil::read_package(kGolden + "compress_ios16.mlpackage");
  ASSERT_TRUE(package.ok());
  std::map<std::string, std::vector<float>> dense;
  for (const mil::Operation& op : package->model.functions.front().operations) {
    const auto load = [&](const char* name) {
      auto tensor = mil::load_value(*package, op.attributes.at(name));
      EXPECT_TRUE(tensor.ok());
      return *tensor;
    };
    std::vector<float>& w = dense[op.outputs.front().name];
    w.assign(512, 0.0f);
    const auto bits_at = [](const Tensor& bytes, size_t first, size_t bits) {
      unsigned code = 0;
      for (size_t b = 0; b < bits; ++b) {
        const unsigned byte = bytes.as<uint8_t>()[(first + b) / 8];
        code |= (byte >> ((first + b) % 8) & 1u) << b;
      }
      return code;
    };
    if (op.type == "constexpr_lut_to_dense") {
      const Tensor indices = load("indices"), lut = load("lut").to(DType::kF32);
      const auto bits = static_cast<size_t>(std::lround(std::log2(lut.count())));
      for (size_t i = 0; i < 512; ++i) w[i] = lut.f32()[bits_at(indices, i * bits, bits)];
    } else if (op.type == "constexpr_affine_dequantize") {
      const Tensor data = load("quantized_data"), scale = load("scale").to(DType::kF32);
      for (size_t i = 0; i < 512; ++i)
        w[i] = static_cast<float>(data.as<int8_t>()[i] - 3) * scale.f32()[i / 32];
    } else if (op.type == "constexpr_sparse_to_dense") {
      const Tensor values = load("nonzero_data").to(DType::kF32), mask = load("mask");
      size_t next = 0;
      for (size_t i = 0; i < 512; ++i)
        if (bits_at(mask, i, 1) != 0) w[i] = values.f32()[next++];
    }
  }
  const std::map<std::string, std::string> weight_of = {
      {"lin1", "lut1"}, {"lin2", "lut2"},   {"lin4", "lut4"}, {"lin6", "lut6"},
      {"lin8", "lut8"}, {"lin_aff", "aff"}, {"lin_sp", "sp"}};
  for (size_t column = 0; column < 32; ++column) {
    Tensor unit = Tensor::zeros(DType::kF32, {1, 32});
    unit.mutable_as<float>()[column] = 1;
    const auto outputs = program->run("main", {{"x", unit}}, nullptr);
    ASSERT_TRUE(outputs.ok()) << outputs.status().to_string();
    ASSERT_EQ(outputs->size(), 7u);
    for (const auto& [name, got] : *outputs)
      for (size_t i = 0; i < 16; ++i)
        EXPECT_EQ(got.f32()[i], dense.at(weight_of.at(name))[i * 32 + column]) << name;
  }
}

// Quantised activations: recomputed from the constants as they lie in the file.
TEST(MilGolden, QuantizedActivations) {
  SKIP_WITHOUT_GOLDEN();
  const auto program = open("w8a8_ios18", false);
  ASSERT_NE(program, nullptr);
  const auto package = mil::read_package(kGolden + "w8a8_ios18.mlpackage");
  ASSERT_TRUE(package.ok());
  std::map<std::string, Tensor> constants;
  Tensor codes, scales;
  for (const mil::Operation& op : package->model.functions.front().operations) {
    if (op.type == "const" && op.attributes.at("val").type.kind == mil::Type::Kind::kTensor)
      constants[op.outputs.front().name] = *mil::load_value(*package, op.attributes.at("val"));
    for (const auto& [name, bindings] : op.inputs) {
      if (op.type != "constexpr_blockwise_shift_scale") continue;
      (name == "data" ? codes : scales) =
          *mil::load_value(*package, std::get<mil::ValueData>(bindings.front()));
    }
  }
  std::vector<float> values(128);
  for (size_t i = 0; i < 128; ++i) values[i] = std::sin(static_cast<float>(i)) * 3.0f;
  const auto outputs = program->run("main", {{"x", Tensor::from_f32({1, 4, 32}, values)}}, nullptr);
  ASSERT_TRUE(outputs.ok()) << outputs.status().to_string();
  auto got = by_name(*outputs);
  const auto scalar = [&](const char* name) { return constants.at(name).to(DType::kF32).f32()[0]; };
  const auto step = [](float v, float scale, float zero, float low, float high) {
    return std::clamp(std::nearbyint(v / scale) + zero, low, high);
  };
  const Tensor s2 = constants.at("q2_scale_0").to(DType::kF32);
  const Tensor d2 = constants.at("dq2_scale_0").to(DType::kF32);
  for (size_t i = 0; i < 128; ++i) {
    const float dz =
        (step(values[i], scalar("q1_scale_0"), 128, 0, 255) - 128) * scalar("dq1_scale_0");
    const float dv = step(values[i], s2.f32()[i % 32], 0, -128, 127) * d2.f32()[i % 32];
    EXPECT_EQ(got["z"].f32()[i], dz + dv) << i;
  }
  const Tensor w = scales.to(DType::kF32);
  for (size_t row = 0; row < 4; ++row) {
    for (size_t n = 0; n < 16; ++n) {
      double sum = 0;
      for (size_t k = 0; k < 32; ++k)
        sum += static_cast<double>(step(values[row * 32 + k], scalar("q0_scale_0"), 0, -128, 127)) *
               scalar("dq0_scale_0") * codes.as<int8_t>()[n * 32 + k] * w.f32()[n];
      EXPECT_NEAR(got["y"].f32()[row * 16 + n], sum, 1e-4);
    }
  }
}

struct Step {
  std::string function;
  int index;
};
// A toy Llama: prefill of 8 tokens, then two decode steps, caches handed on.
void run_llm(const std::function<MilProgram*(const Step&)>& program_of, double tolerance) {
  NamedTensors states;
  const Step steps[] = {{"prefill", 0}, {"decode", 1}, {"decode", 2}};
  for (const Step& step : steps) {
    MilProgram* program = program_of(step);
    ASSERT_NE(program, nullptr);
    const std::string prefix = "llm_expected/step" + std::to_string(step.index) + "_";
    const std::string function = program->functions().size() == 1 ? "main" : step.function;
    const auto outputs = program->run(function,
                                      {{"input_ids", npy(prefix + "input_ids.npy")},
                                       {"position", npy(prefix + "position.npy")},
                                       {"causal_mask", npy(prefix + "causal_mask.npy")}},
                                      &states);
    ASSERT_TRUE(outputs.ok()) << outputs.status().to_string();
    ASSERT_EQ(outputs->size(), 1u);
    EXPECT_EQ(outputs->front().first, "logits");
    expect_close(outputs->front().second, npy(prefix + "logits_fp32.npy"), tolerance, 0, prefix);
    auto caches = by_name(states);
    expect_close(caches["k_cache"], npy(prefix + "k_cache_after_fp32.npy"), 2 * tolerance, 0,
                 prefix);
    expect_close(caches["v_cache"], npy(prefix + "v_cache_after_fp32.npy"), 2 * tolerance, 0,
                 prefix);
  }
}
// Allowed of logits; caches hold larger numbers and may differ twice as much.
// Against numpy in f32 the interpreter in f32 differs by the order of sums, and because numpy was
// given weights that were rounded to fp16 after they were decompressed.
constexpr double kDecompressed = 1.5e-3;
// Orders of sums alone.
constexpr double kTight = 2e-5;

TEST(MilGolden, LlmAcrossTwoPackages) {
  SKIP_WITHOUT_GOLDEN();
  const auto prefill = open("llm_prefill", false), decode = open("llm_decode", false);
  run_llm([&](const Step& s) { return s.index == 0 ? prefill.get() : decode.get(); },
          kDecompressed);
}
TEST(MilGolden, LlmOfTwoFunctions) {
  SKIP_WITHOUT_GOLDEN();
  const auto program = open("llm_multi", false);
  run_llm([&](const Step&) { return program.get(); }, kDecompressed);
}
TEST(MilGolden, LlmInFp16) {
  SKIP_WITHOUT_GOLDEN();
  const auto program = open("llm_multi", true);
  run_llm([&](const Step&) { return program.get(); }, 3e-3);
}

TEST(MilGolden, ThreadsDoNotChangeABit) {
  SKIP_WITHOUT_GOLDEN();
  const auto run = [&](int threads) {
    const auto program = open("llm_prefill", false, threads);
    auto outputs = program->run("main",
                                {{"input_ids", npy("llm_expected/step0_input_ids.npy")},
                                 {"position", npy("llm_expected/step0_position.npy")},
                                 {"causal_mask", npy("llm_expected/step0_causal_mask.npy")}},
                                nullptr);
    EXPECT_TRUE(outputs.ok());
    return outputs->front().second;
  };
  const Tensor one = run(1), four = run(4);
  EXPECT_TRUE(std::equal(one.bytes().begin(), one.bytes().end(), four.bytes().begin()));
}

// The package as a runner gives the same logits as the raw calls.
TEST(MilGolden, RunnerOverTwoFunctions) {
  SKIP_WITHOUT_GOLDEN();
  auto runner = package_runner(open("llm_multi", false));
  ASSERT_TRUE(runner.ok()) << runner.status().to_string();
  Runner& r = **runner;
  EXPECT_EQ(r.info().capacity, 32);
  EXPECT_EQ(r.info().chunk, 8);
  EXPECT_EQ(r.info().vocab_size, 128);
  std::vector<int32_t> ids;
  std::vector<float> want;
  const auto program = open("llm_multi", false);
  NamedTensors states;
  for (int step = 0; step < 3; ++step) {
    const std::string prefix = "llm_expected/step" + std::to_string(step) + "_";
    const Tensor chunk = npy(prefix + "input_ids.npy");
    ids.insert(ids.end(), chunk.as<int32_t>().begin(), chunk.as<int32_t>().end());
    const auto outputs = program->run(step == 0 ? "prefill" : "decode",
                                      {{"input_ids", chunk},
                                       {"position", npy(prefix + "position.npy")},
                                       {"causal_mask", npy(prefix + "causal_mask.npy")}},
                                      &states);
    ASSERT_TRUE(outputs.ok()) << outputs.status().to_string();
    const auto logits = outputs->front().second.f32();
    want.insert(want.end(), logits.begin(), logits.end());
  }
  const auto check = [&](const std::vector<float>& got, size_t first_row) {
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], want[first_row * 128 + i], kTight) << "element " << i;
  };
  // All at once: a whole chunk and a padded one.
  std::vector<float> all(10 * 128);
  ASSERT_TRUE(r.prefill(ids, LogitsOf::kAll, all).ok());
  check(all, 0);
  // Back to 3 tokens, then at awkward cuts: the padding of the first cut must leave no trace.
  ASSERT_TRUE(r.truncate(3).ok());
  EXPECT_EQ(r.position(), 3);
  std::vector<float> one(128);
  ASSERT_TRUE(r.prefill(std::span(ids).subspan(3, 5), LogitsOf::kLast, one).ok());
  check(one, 7);
  ASSERT_TRUE(r.decode(ids[8], one).ok());
  check(one, 8);
  ASSERT_TRUE(r.decode(ids[9], one).ok());
  check(one, 9);
  // Up to the brim and not beyond; the last chunk no longer fits and is decoded.
  std::vector<int32_t> more(22, 5);
  ASSERT_TRUE(r.prefill(more, LogitsOf::kNone, {}).ok());
  EXPECT_EQ(r.position(), 32);
  EXPECT_EQ(r.decode(1, one).code(), StatusCode::kUsage);
  EXPECT_EQ(r.position(), 32);
  ASSERT_TRUE(r.truncate(0).ok());
  ASSERT_TRUE(r.prefill(ids, LogitsOf::kLast, one).ok());
  check(one, 9);
}

// One function for both: a chunk that would run past the capacity starts earlier.
TEST(MilGolden, RunnerOverOneFunctionMovesTheLastChunkBack) {
  SKIP_WITHOUT_GOLDEN();
  auto single = package_runner(open("llm_prefill", false));
  auto pair = package_runner(open("llm_multi", false));
  auto steps = package_runner(open("llm_decode", false));
  ASSERT_TRUE(single.ok() && pair.ok() && steps.ok());
  EXPECT_EQ((*steps)->info().chunk, 1);
  std::vector<int32_t> ids(30);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % 128);
  std::vector<float> a(30 * 128), b(30 * 128), c(30 * 128);
  const auto feed = [&](Runner& r, std::vector<float>& logits) {
    // 13 tokens, one, 13, then three one by one: positions 27..29 do not fit a chunk of 8.
    size_t at = 0;
    for (const size_t n : {13, 1, 13, 1, 1, 1}) {
      const Status s = r.prefill(std::span(ids).subspan(at, n), LogitsOf::kAll,
                                 std::span(logits).subspan(at * 128, n * 128));
      ASSERT_TRUE(s.ok()) << s.to_string();
      at += n;
    }
    EXPECT_EQ(r.position(), 30);
  };
  feed(**single, a);
  feed(**pair, b);
  feed(**steps, c);
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], kTight) << i;
    ASSERT_NEAR(a[i], c[i], kTight) << i;
  }
}

TEST(MilGolden, OtherInterfacesAreRefused) {
  SKIP_WITHOUT_GOLDEN();
  const auto runner = package_runner(open("w8a8_ios18", false));
  ASSERT_FALSE(runner.ok());
  EXPECT_EQ(runner.status().code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace pome
