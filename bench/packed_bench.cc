// Products with packed weights on one core, with the matrices that decoding and prefill have.
//
// gemv: one token; GB/s of weights as they lie in memory. "memory" walks over 512 MB, more than any
// cache holds; "cache" takes the same eight tiles over and over. gemm: GMAC/s of M tokens over
// different tiles, each turned into a panel as in prefill. Hold both against `pome bench` roofs.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/packed/products.h"

namespace pome::kernels {
namespace {

struct Free {
  void operator()(std::byte* at) const { std::free(at); }
};
using Memory = std::unique_ptr<std::byte, Free>;

// Large pages, as the engine's weights have them.
Memory allocate(int64_t bytes) {
  constexpr size_t kPage = size_t{2} << 20;
  const size_t size = (static_cast<size_t>(bytes) + kPage - 1) / kPage * kPage;
  auto* at = static_cast<std::byte*>(std::aligned_alloc(kPage, size));
  if (!at) std::abort();
#if defined(MADV_HUGEPAGE)
  madvise(at, size, MADV_HUGEPAGE);
#endif
  std::memset(at, 0x11, size);  // what weights are does not change how long they take
  return Memory(at);
}

struct Setup {
  Setup(const Encoding& encoding, int64_t columns, int64_t m, int64_t weight_bytes)
      : format(*packed_format(encoding, columns)) {
    const int64_t one = packed_layout(format, kTileRows, columns).tile_bytes;
    tiles = std::max<int64_t>(2, weight_bytes / one / 2 * 2);
    layout = packed_layout(format, tiles * kTileRows, columns);
    weights = allocate(tiles * one);
    memory = allocate(activation_bytes(m, columns));
    scratch = allocate(gemm_panel_bytes(columns));
    y.resize(static_cast<size_t>(m * tiles * kTileRows));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(columns));
    args.x = activations_in(memory.get(), m, columns,
                            m < kGemmTokens ? ActivationBits::kByte : ActivationBits::kCoarse);
    const auto quantize = choose_quantize(*selected_isa());
    for (int64_t row = 0; row < m; ++row) {
      for (float& value : x) value = normal(random);
      quantize(x.data(), columns, args.x, row);
    }
    args.w = {format, layout, weights.get()};
    args.ldy = tiles * kTileRows;
    args.scratch = scratch.get();
  }
  // Tiles [tile, tile + count).
  const ProductArgs& at(int64_t tile, int64_t count) {
    args.tile = tile;
    args.tiles = count;
    args.y = y.data() + tile * kTileRows;
    return args;
  }
  PackedFormat format;
  PackedLayout layout;
  Memory weights, memory, scratch;
  std::vector<float> y;
  int64_t tiles = 0;
  ProductArgs args;
};

void gemv(benchmark::State& state, const Encoding& encoding, int64_t columns, bool cache) {
  const PackedEntry* kernels = choose_packed(*selected_isa());
  if (!kernels) return state.SkipWithError("no packed kernels for this instruction set");
  Setup setup(encoding, columns, 1, int64_t{cache ? 1 : 512} << 20);
  const int64_t count = cache ? std::min<int64_t>(setup.tiles, 8) : setup.tiles;
  for (auto _ : state) kernels->multiply(setup.at(0, count));
  state.SetBytesProcessed(state.iterations() * count * setup.layout.tile_bytes);
}
void gemm(benchmark::State& state, const Encoding& encoding, int64_t columns, int64_t m) {
  const PackedEntry* kernels = choose_packed(*selected_isa());
  if (!kernels) return state.SkipWithError("no packed kernels for this instruction set");
  Setup setup(encoding, columns, m, int64_t{16} << 20);
  int64_t tile = 0;
  for (auto _ : state) {
    kernels->multiply(setup.at(tile, 2));
    tile = (tile + 2) % setup.tiles;
  }
  state.counters["GMAC/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * 2 * kTileRows * columns * m) / 1e9,
      benchmark::Counter::kIsRate);
}

int register_all() {
  const Encoding encodings[] = {Encoding::plain(EncodingKind::kQ4_K),
                                Encoding::plain(EncodingKind::kQ6_K),
                                Encoding::plain(EncodingKind::kQ8_0),
                                Encoding::plain(EncodingKind::kQ4_0),
                                Encoding::plain(EncodingKind::kQ2_K),
                                Encoding::int_blocks(4, 32),
                                Encoding::lut(4, 16)};
  for (const Encoding& encoding : encodings) {
    for (const int64_t columns : {2048, 8192}) {
      const std::string name = to_string(encoding) + "/" + std::to_string(columns);
      for (const bool cache : {false, true})
        benchmark::RegisterBenchmark(("gemv/" + name + (cache ? "/cache" : "/memory")).c_str(),
                                     gemv, encoding, columns, cache);
      for (const int64_t m : {128, 256})
        benchmark::RegisterBenchmark(("gemm/" + name + "/" + std::to_string(m)).c_str(), gemm,
                                     encoding, columns, m);
    }
  }
  return 0;
}
const int registered = register_all();

}  // namespace
}  // namespace pome::kernels
