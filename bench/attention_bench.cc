// Attention of one layer of Llama-3.2-1B's shape (32 heads, 8 key heads, 64 values each) on one
// core: the last 128 tokens of a context (prefill) and one token (decode), for every kind of cache.
// GMAC/s counts the products that the causal mask leaves; GB/s the rows of the cache, each once.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"

namespace pome::kernels {
namespace {

constexpr int64_t kHeads = 32, kKvHeads = 8, kDim = 64, kGroup = kHeads / kKvHeads;

struct Layer {
  Layer(KvKind kind, int64_t context, int64_t tokens)
      : row_bytes(kv_row_bytes(kind, kDim)),
        q(static_cast<size_t>(kHeads * tokens * kDim)),
        y(q.size()),
        k(static_cast<size_t>(kKvHeads * context * row_bytes)),
        v(k.size()),
        scratch(static_cast<size_t>(attention_scratch(kDim, kDim))) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : q) value = normal(random);
    float row[kDim];
    for (auto* cache : {&k, &v}) {
      for (size_t at = 0; at < cache->size(); at += static_cast<size_t>(row_bytes)) {
        for (float& value : row) value = normal(random);
        kv_pack_row(kind, row, kDim, cache->data() + at);
      }
    }
  }
  int64_t row_bytes;
  std::vector<float> q, y;
  std::vector<std::byte> k, v;
  std::vector<float> scratch;
};

void run(benchmark::State& state, Isa isa, KvKind kind, int64_t context, int64_t tokens,
         bool exact) {
  const AttentionKernels kernels = choose_attention(isa, exact);
  Layer layer(kind, context, tokens);
  const int64_t rows = kGroup * tokens;
  AttentionArgs args;
  args.ldq = args.ldy = kDim;
  args.scale = 0.125f;
  for (auto _ : state) {
    for (int64_t head = 0; head < kKvHeads; ++head) {
      args.k = {kind, layer.k.data() + head * context * layer.row_bytes, layer.row_bytes, kDim,
                kDim};
      args.v = {kind, layer.v.data() + head * context * layer.row_bytes, layer.row_bytes, kDim,
                kDim};
      for (int64_t row = 0; row < rows; row += kAttentionRows) {
        args.rows = std::min(kAttentionRows, rows - row);
        args.q = layer.q.data() + (head * rows + row) * kDim;
        args.y = layer.y.data() + (head * rows + row) * kDim;
        for (int64_t r = 0; r < args.rows; ++r)
          args.last[r] = context - tokens + (row + r) % tokens + 1;
        attention_rows(kernels, args, layer.scratch.data());
      }
    }
  }
  const double seen = static_cast<double>(tokens) *
                      (static_cast<double>(context) - static_cast<double>(tokens - 1) / 2);
  const auto per_second = [&](double count) {
    return benchmark::Counter(count, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GMAC"] = per_second(seen * kHeads * kDim * 2 / 1e9);
  state.counters["GB"] =
      per_second(static_cast<double>(2 * kKvHeads * context * layer.row_bytes) / 1e9);
}

void add_all() {
  for (const Isa isa : available_isas()) {
    if (isa == Isa::kPortable || isa == Isa::kAvx512Vnni || isa == Isa::kAmx) continue;
    for (const KvKind kind : {KvKind::kF32, KvKind::kF16, KvKind::kQ8, KvKind::kQ4})
      for (const int64_t context : {512, 2048, 4096})
        for (const int64_t tokens : {1, 128}) {
          const std::string name = std::string(tokens == 1 ? "decode" : "prefill") + "/" +
                                   std::string(to_string(isa)) + "/" +
                                   std::string(to_string(kind)) + "/" + std::to_string(context);
          benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
            run(state, isa, kind, context, tokens, false);
          });
        }
  }
}
const bool kAdded = (add_all(), true);

}  // namespace
}  // namespace pome::kernels
