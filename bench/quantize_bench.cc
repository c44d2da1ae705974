// Cost of quantising on one thread: time per 10^9 weights ("time/Gw"; seconds there are
// milliseconds per million). Whole schemes
// from a bf16 source to encoded tiles, and the fits on their own.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "graph/constant.h"
#include "quantize/int_scale.h"
#include "quantize/palette.h"
#include "quantize/quantize.h"
#include "tensor/half.h"

namespace pome {
namespace {

// Weights as language models have them: heavy tails (Student t, 5 degrees of freedom), rows and
// columns of different size, sigma about 0.02.
std::vector<float> llm_like(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::student_t_distribution<double> heavy(5.0);
  std::vector<double> row_scale(static_cast<size_t>(rows)),
      column_scale(static_cast<size_t>(columns));
  for (double& s : row_scale) s = 0.02 * std::exp(0.35 * normal(random));
  for (double& s : column_scale) s = std::exp(0.25 * normal(random));
  std::vector<float> out;
  out.reserve(static_cast<size_t>(rows * columns));
  for (const double r : row_scale) {
    for (const double c : column_scale) out.push_back(static_cast<float>(heavy(random) * r * c));
  }
  return out;
}

class Bf16Source final : public ConstantData {
 public:
  Bf16Source(int64_t rows, int64_t columns, const std::vector<float>& values)
      : ConstantData({rows, columns}, Encoding::plain(EncodingKind::kBF16)), bits_(values.size()) {
    f32_to_bf16(values, bits_);
  }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->parts.assign(
        1, std::as_bytes(std::span(bits_).subspan(static_cast<size_t>(row * columns()),
                                                  static_cast<size_t>(rows * columns()))));
    return {};
  }

 private:
  std::vector<uint16_t> bits_;
};

constexpr int64_t kRows = 512, kColumns = 2048;

void report(benchmark::State& state, int64_t weights) {
  state.counters["time/Gw"] = benchmark::Counter(
      static_cast<double>(weights * state.iterations()) / 1e9,
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert, benchmark::Counter::kIs1000);
}

void scheme(benchmark::State& state, const char* name) {
  const auto source = std::make_shared<Bf16Source>(kRows, kColumns, llm_like(kRows, kColumns, 1));
  Encoding encoding = parse_recipe(name)->matrices;
  if (encoding.kind == EncodingKind::kInt && encoding.block == 0) encoding.block = kColumns;
  const ConstantDataPtr data = encoded_constant(source, encoding);
  const int64_t step = tile_rows(*data);
  EncodedTile tile;
  for (auto _ : state) {
    for (int64_t row = 0; row < kRows; row += step) {
      const Status status = data->read_tile(row, std::min(step, kRows - row), &tile);
      if (!status.ok()) return state.SkipWithError(status.to_string().c_str());
      benchmark::DoNotOptimize(tile.parts[0].data());
    }
  }
  report(state, kRows * kColumns);
}
BENCHMARK_CAPTURE(scheme, f16, "f16");
BENCHMARK_CAPTURE(scheme, int8, "int8");
BENCHMARK_CAPTURE(scheme, int4, "int4");
BENCHMARK_CAPTURE(scheme, lut8, "lut8");
BENCHMARK_CAPTURE(scheme, lut6, "lut6");
BENCHMARK_CAPTURE(scheme, lut4, "lut4");
BENCHMARK_CAPTURE(scheme, lut3, "lut3");
BENCHMARK_CAPTURE(scheme, lut2, "lut2");

// One group of 16 rows; counters give the excess over the exact optimum in percent.
void palette(benchmark::State& state, KMeansMethod method, int64_t bins, bool bf16) {
  const int bits = static_cast<int>(state.range(0));
  const std::vector<float> group = llm_like(16, kColumns, 2);
  KeyHistogram histogram;
  std::vector<uint16_t> keys;
  for (const float value : group) {
    keys.push_back(key_of_f16(f32_to_f16(bf16 ? bf16_to_f32(f32_to_bf16(value)) : value)));
  }
  histogram.add(keys);
  std::vector<double> values, weights;
  histogram.collect(&values, &weights);
  double cost = 0;
  for (auto _ : state) {
    cost = kmeans(values, weights, 1 << bits, method, bins).cost;
    benchmark::DoNotOptimize(cost);
  }
  const double exact = kmeans(values, weights, 1 << bits, KMeansMethod::kDivideAndConquer).cost;
  report(state, 16 * kColumns);
  state.counters["excess%"] = 100 * (cost / exact - 1);
  state.counters["distinct"] = static_cast<double>(values.size());
}
BENCHMARK_CAPTURE(palette, divide_f32, KMeansMethod::kDivideAndConquer, 0, false)->Arg(4);
BENCHMARK_CAPTURE(palette, lagrangian_f32, KMeansMethod::kLagrangian, 0, false)
    ->Arg(2)
    ->Arg(3)
    ->Arg(4)
    ->Arg(6)
    ->Arg(8);
BENCHMARK_CAPTURE(palette, lagrangian_bf16, KMeansMethod::kLagrangian, 0, true)
    ->Arg(2)
    ->Arg(3)
    ->Arg(4)
    ->Arg(6)
    ->Arg(8);
BENCHMARK_CAPTURE(palette, coarse256_f32, KMeansMethod::kCoarse, 256, false)
    ->Arg(2)
    ->Arg(3)
    ->Arg(4);
BENCHMARK_CAPTURE(palette, coarse512_f32, KMeansMethod::kCoarse, 512, false)
    ->Arg(2)
    ->Arg(3)
    ->Arg(4)
    ->Arg(6);
BENCHMARK_CAPTURE(palette, coarse512_bf16, KMeansMethod::kCoarse, 512, true)->Arg(4);

// Second moments of activations of columns of different size, and directions of falling weight.
Moments some_moments(int64_t columns) {
  constexpr int64_t kDirections = 32;
  Moments out{columns, 8 * columns, std::vector<float>(static_cast<size_t>(columns * columns))};
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> mix(static_cast<size_t>(kDirections * columns));
  for (int64_t i = 0; i < columns; ++i) {
    const float size = std::exp(0.5f * normal(random));
    for (int64_t k = 0; k < kDirections; ++k)
      mix[static_cast<size_t>(kDirections * i + k)] =
          size * normal(random) / std::sqrt(1 + static_cast<float>(k));
  }
  for (int64_t i = 0; i < columns; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float sum = i == j ? 1.0f : 0.0f;
      for (int64_t k = 0; k < kDirections; ++k)
        sum += mix[static_cast<size_t>(kDirections * i + k)] *
               mix[static_cast<size_t>(kDirections * j + k)];
      out.second[static_cast<size_t>(i * columns + j)] = sum;
    }
  return out;
}

// U D U' of H; the counter is 10^9 multiplications a second, n^3 / 6 of them.
void factor(benchmark::State& state) {
  const int64_t n = state.range(0);
  const Moments moments = some_moments(n);
  for (auto _ : state) benchmark::DoNotOptimize(Feedback::create(moments));
  state.counters["GMAC/s"] =
      benchmark::Counter(static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) /
                             6e9 * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}
BENCHMARK(factor)->Arg(1024)->Arg(2048)->Arg(4096)->Arg(8192)->Unit(benchmark::kMillisecond);

// Rows of int4, the largest value of a block at 7, rounded with feedback.
void feedback(benchmark::State& state) {
  const int64_t n = state.range(0), rows = state.range(1);
  const auto made = Feedback::create(some_moments(n));
  const std::vector<float> values = llm_like(rows, n, 6);
  const auto levels = std::make_shared<const Levels>(Levels::of_integers(-8, 7, 0));
  std::vector<RowGrid> grids;
  for (size_t at = 0; at < values.size(); at += static_cast<size_t>(n)) {
    std::vector<float> scales(static_cast<size_t>(n / 32));
    for (size_t i = 0; i < static_cast<size_t>(n); ++i)
      scales[i / 32] = std::max(scales[i / 32], std::fabs(values[at + i]) / 7);
    grids.emplace_back(levels, 32, std::move(scales), std::vector<float>());
  }
  std::vector<uint8_t> codes(values.size());
  for (auto _ : state) benchmark::DoNotOptimize((*made)->round(values, grids, codes));
  report(state, rows * n);
  state.counters["GMAC/s"] =
      benchmark::Counter(static_cast<double>(rows * n) * static_cast<double>(n) / 2e9 *
                             static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}
BENCHMARK(feedback)
    ->Args({1024, 256})
    ->Args({2048, 128})
    ->Args({4096, 128})
    ->Args({8192, 64})
    ->Args({8192, 128})
    ->Unit(benchmark::kMillisecond);

// Whole schemes with feedback and rounds of refinement.
void refined(benchmark::State& state, Encoding encoding) {
  const auto rounds = static_cast<int>(state.range(0));
  const auto source = std::make_shared<Bf16Source>(kRows, kColumns, llm_like(kRows, kColumns, 7));
  const auto moments = std::make_shared<const Moments>(some_moments(kColumns));
  const auto made = Feedback::create_with_form(moments, run_for(encoding));
  const ConstantDataPtr data =
      with_feedback(encoded_constant(source, encoding), {*made}, {.rounds = rounds});
  std::vector<float> values(static_cast<size_t>(kRows * kColumns)), decoded(values);
  if (!source->read_f32(0, kRows, values.data()).ok()) return state.SkipWithError("unreadable");
  EncodedTile tile;
  for (auto _ : state) {
    const Status status = data->read_tile(0, kRows, &tile);
    if (!status.ok()) return state.SkipWithError(status.to_string().c_str());
    benchmark::DoNotOptimize(tile.parts[0].data());
  }
  report(state, kRows * kColumns);
  if (!data->read_f32(0, kRows, decoded.data()).ok()) return state.SkipWithError("unreadable");
  for (size_t i = 0; i < values.size(); ++i) decoded[i] -= values[i];
  double error = 0, energy = 0;
  for (const double cost : (*made)->form()->costs(decoded)) error += cost;
  for (const double cost : (*made)->form()->costs(values)) energy += cost;
  state.counters["error%"] = 100 * error / energy;
}
BENCHMARK_CAPTURE(refined, int4, Encoding::int_blocks(4, 32))->Arg(0)->Arg(2);
BENCHMARK_CAPTURE(refined, q2_k, Encoding::plain(EncodingKind::kQ2_K))->Arg(0)->Arg(2);
BENCHMARK_CAPTURE(refined, q3_k, Encoding::plain(EncodingKind::kQ3_K))->Arg(0)->Arg(2);
BENCHMARK_CAPTURE(refined, q4_k, Encoding::plain(EncodingKind::kQ4_K))->Arg(0)->Arg(2);
BENCHMARK_CAPTURE(refined, lut4, Encoding::lut(4, 16))->Arg(0)->Arg(2);

// What the range of codes and the sign of the scale buy: mean squared error over that of codes
// [-7, 7], in percent.
void int4_range(benchmark::State& state, CodeRange range) {
  const std::vector<float> values = llm_like(64, kColumns, 3);
  ScaleScratch scratch;
  double error = 0, symmetric = 0;
  const auto total = [&](const CodeRange& codes) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); i += 32) {
      sum += fit_scale_exact(std::span(values).subspan(i, 32), {}, codes, &scratch).error;
    }
    return sum;
  };
  for (auto _ : state) error = total(range);
  symmetric = total({-7, 7, false});
  report(state, 64 * kColumns);
  state.counters["error%"] = 100 * error / symmetric;
}
BENCHMARK_CAPTURE(int4_range, minus7_to_7, CodeRange{-7, 7, false});
BENCHMARK_CAPTURE(int4_range, minus8_to_7, CodeRange{-8, 7, false});
BENCHMARK_CAPTURE(int4_range, minus8_to_7_both_signs, CodeRange{-8, 7, true});

}  // namespace
}  // namespace pome
