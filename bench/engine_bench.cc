// Tokens per second of the engine on one core: prefill of 512 tokens and decode of 128 behind them,
// for a graph of the embedded model's shape (Llama, 7.3 M parameters) with random weights; and the
// rate of single products per kernel.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/engine.h"
#include "graph/builder.h"
#include "kernels/gemm/gemm.h"
#include "quantize/quantize.h"
#include "tensor/half.h"

namespace pome {
namespace {

constexpr int64_t kHidden = 256, kLayers = 8, kHeads = 4, kKvHeads = 2, kDim = 64, kWidth = 768,
                  kVocab = 4096;

// Random values kept in memory as bf16.
class RandomBf16 final : public ConstantData {
 public:
  RandomBf16(Shape shape, uint32_t seed)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kBF16)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.05f);
    bits_.resize(static_cast<size_t>(rows() * columns()));
    for (uint16_t& bits : bits_) bits = f32_to_bf16(normal(random));
  }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    const auto width = static_cast<size_t>(columns());
    tile->parts = {
        std::as_bytes(std::span(bits_))
            .subspan(static_cast<size_t>(row) * width * 2, static_cast<size_t>(rows) * width * 2)};
    return {};
  }
  std::optional<std::span<const std::byte>> view() const override {
    return std::as_bytes(std::span(bits_));
  }

 private:
  std::vector<uint16_t> bits_;
};

class ModelBuilder {
 public:
  ModelBuilder() : b_(info()) {}
  Graph build() {
    const ValueId ids = b_.token_ids(), position = b_.position();
    std::vector<float> frequencies;
    for (int64_t i = 0; i < kDim / 2; ++i)
      frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / kDim));
    const ValueId inverse = b_.vector("inverse_frequencies", frequencies);
    const ValueId table = weight({kVocab, kHidden}, Constant::Role::kEmbedding);
    ValueId x = b_.add(EmbeddingOp{}, {table, ids});
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const ValueId k_cache = b_.cache(layer, CachePair::Kind::kKey, kKvHeads, kDim);
      const ValueId v_cache = b_.cache(layer, CachePair::Kind::kValue, kKvHeads, kDim);
      const ValueId h = norm(x);
      const RopeOp rope{RopeStyle::kHalves, kDim, 1.0};
      const ValueId q = b_.add(rope, {heads(h, kHeads), position, inverse});
      const ValueId k = b_.add(rope, {heads(h, kKvHeads), position, inverse});
      const ValueId keys = b_.kv_write(k_cache, k, position);
      const ValueId values = b_.kv_write(v_cache, heads(h, kKvHeads), position);
      const ValueId mixed = b_.merge_heads(b_.add(AttentionOp{0.125, 0, 0}, {q, keys, values}));
      x = b_.binary(BinaryKind::kAdd, x, linear(mixed, kHidden, kHeads * kDim));
      const ValueId n = norm(x);
      const ValueId inner =
          b_.add(SwigluOp{}, {linear(n, kWidth, kHidden), linear(n, kWidth, kHidden)});
      x = b_.binary(BinaryKind::kAdd, x, linear(inner, kHidden, kWidth));
      b_.end_layer(x);
    }
    auto graph = b_.finish(b_.linear(norm(x), table));
    POME_CHECK(graph.ok());
    return std::move(*graph);
  }

 private:
  static ModelInfo info() {
    ModelInfo info;
    info.name = "bench";
    info.vocab_size = kVocab;
    info.max_position_embeddings = 1024;
    return info;
  }
  ValueId weight(Shape shape, Constant::Role role = Constant::Role::kMatrix) {
    Constant made;
    made.name = "w" + std::to_string(count_++);
    made.data = std::make_shared<RandomBf16>(std::move(shape), count_);
    made.role = role;
    return b_.constant(std::move(made));
  }
  ValueId linear(ValueId x, int64_t n, int64_t k) { return b_.linear(x, weight({n, k})); }
  ValueId heads(ValueId x, int64_t count) {
    return b_.split_heads(linear(x, count * kDim, kHidden), count, kDim);
  }
  ValueId norm(ValueId x) {
    return b_.add(RmsNormOp{1e-5}, {x, b_.vector("g" + std::to_string(count_++),
                                                 std::vector<float>(kHidden, 1.0f))});
  }
  GraphBuilder b_;
  uint32_t count_ = 0;
};

// The benchmark's argument: weights as bf16, int8, int4, lut4.
constexpr const char* kSchemes[] = {"bf16", "int8", "int4", "lut4"};

std::unique_ptr<Runner> session(benchmark::State& state) {
  Graph graph = ModelBuilder().build();
  const char* scheme = kSchemes[state.range(0)];
  if (state.range(0) != 0) {
    auto recipe = parse_recipe(scheme);
    POME_CHECK(recipe.ok());
    auto quantized = quantize(graph, *recipe);
    POME_CHECK(quantized.ok());
    graph = std::move(quantized->graph);
  }
  PlanOptions options;
  options.threads = static_cast<int>(state.range(1));
  auto plan = compile(graph, options);
  POME_CHECK(plan.ok());
  state.SetLabel(std::string(scheme) + " " + std::string(to_string((*plan)->isa())));
  auto made = (*plan)->new_session();
  POME_CHECK(made.ok());
  return std::move(*made);
}

void BM_Prefill512(benchmark::State& state) {
  const auto runner = session(state);
  std::vector<int32_t> ids(512);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % kVocab);
  std::vector<float> logits(kVocab);
  for (auto _ : state) {
    POME_CHECK(runner->truncate(0).ok());
    POME_CHECK(runner->prefill(ids, LogitsOf::kLast, logits).ok());
  }
  state.counters["tokens/s"] = benchmark::Counter(512.0 * static_cast<double>(state.iterations()),
                                                  benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Prefill512)->ArgsProduct({{0, 1, 2, 3}, {1}})->Unit(benchmark::kMillisecond);

void BM_Decode128(benchmark::State& state) {
  const auto runner = session(state);
  std::vector<int32_t> ids(512, 7);
  std::vector<float> logits(kVocab);
  POME_CHECK(runner->prefill(ids, LogitsOf::kLast, logits).ok());
  for (auto _ : state) {
    POME_CHECK(runner->truncate(512).ok());
    for (int32_t i = 0; i < 128; ++i) POME_CHECK(runner->decode(i, logits).ok());
  }
  state.counters["tokens/s"] = benchmark::Counter(128.0 * static_cast<double>(state.iterations()),
                                                  benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Decode128)->ArgsProduct({{0, 1, 2, 3}, {1}})->Unit(benchmark::kMillisecond);

// f32 panel kernels on their own: GFLOP/s of [m, 256] x [768, 256]^T.
void BM_Panel(benchmark::State& state) {
  const auto& entry = kernels::panel_kernels()[static_cast<size_t>(state.range(0))];
  const int64_t m = state.range(1), n = 768, k = 256;
  std::vector<float> x(static_cast<size_t>(m * k), 0.5f), w(static_cast<size_t>(n * k), 0.25f),
      y(static_cast<size_t>(m * n));
  for (auto _ : state) {
    for (int64_t row = 0; row < n; row += 16)
      entry.run({x.data(), k, m, w.data() + row * k, k, 16, k, y.data() + row, n});
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::string(entry.name));
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * static_cast<double>(m * n * k * state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Panel)->Apply([](benchmark::internal::Benchmark* bench) {
  for (size_t i = 0; i < kernels::panel_kernels().size(); ++i)
    for (const int64_t m : {1, 32, 128}) bench->Args({static_cast<int64_t>(i), m});
});

}  // namespace
}  // namespace pome
