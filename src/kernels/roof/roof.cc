#include "kernels/roof/roof.h"

#include <algorithm>
#include <vector>

#include "base/stopwatch.h"

namespace pome::kernels {

namespace {

constexpr ReadRoofEntry kReadKernels[] = {
#define POME_READ_ROOF_KERNEL(isa, function) {#function, Isa::isa, function},
#include "kernels/roof/kernels.inc"
};
constexpr ProductRoofEntry kProductKernels[] = {
#define POME_PRODUCT_ROOF_KERNEL(isa, product, macs, function) \
  {#function, Isa::isa, RoofProduct::product, macs, function},
#include "kernels/roof/kernels.inc"
};

// Shortest time of `run` on all threads of the pool at once, over `seconds` and at least 5 times.
template <typename Run>
double shortest(ThreadPool* pool, double seconds, const Run& run) {
  const int64_t threads = pool->threads();
  double best = 1e30;
  const Stopwatch all;
  for (int times = 0; times < 5 || all.seconds() < seconds; ++times) {
    const Stopwatch watch;
    pool->parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) run(part);
    });
    best = std::min(best, watch.seconds());
  }
  return best;
}

// One result per thread, a cache line each: what is computed must not be thrown away.
struct alignas(64) Sink {
  double value = 0;
};

}  // namespace

std::string_view to_string(RoofProduct product) {
  constexpr std::string_view kNames[] = {"int8", "bf16", "f32"};
  return kNames[static_cast<size_t>(product)];
}

std::span<const ReadRoofEntry> read_roof_kernels() { return kReadKernels; }
std::span<const ProductRoofEntry> product_roof_kernels() { return kProductKernels; }

ReadRoofKernel choose_read_roof(Isa isa) {
  return best_entry(read_roof_kernels(), isa, [](const ReadRoofEntry&) { return true; })->run;
}
const ProductRoofEntry* choose_product_roof(Isa isa, RoofProduct product) {
  return best_entry(product_roof_kernels(), isa,
                    [&](const ProductRoofEntry& entry) { return entry.product == product; });
}

double measure_read_roof(Isa isa, std::span<const std::byte> memory, ThreadPool* pool) {
  const ReadRoofKernel read = choose_read_roof(isa);
  const auto threads = static_cast<int64_t>(pool->threads());
  const int64_t part = static_cast<int64_t>(memory.size()) / threads / kReadUnit * kReadUnit;
  if (part == 0) return 0;
  // Small sets are read several times, so that starting the threads does not count.
  constexpr int64_t kLeast = int64_t{16} << 20;
  const int64_t times = std::max<int64_t>(1, kLeast / part);
  std::vector<Sink> sinks(static_cast<size_t>(threads));
  constexpr double kSeconds = 0.4;
  const double best = shortest(pool, kSeconds, [&](int64_t index) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < times; ++i) sum += read(memory.data() + index * part, part);
    sinks[static_cast<size_t>(index)].value += static_cast<double>(sum);
  });
  return static_cast<double>(part * threads * times) / best;
}

double measure_product_roof(Isa isa, RoofProduct product, ThreadPool* pool) {
  const ProductRoofEntry* entry = choose_product_roof(isa, product);
  if (!entry) return 0;
  std::vector<Sink> sinks(static_cast<size_t>(pool->threads()));
  // Long enough that starting the threads does not count, short enough to find a quiet moment.
  constexpr double kSeconds = 0.2, kRunSeconds = 5e-4;
  int64_t rounds = 1000;
  for (;; rounds *= 2) {
    double taken = 1e30;
    for (int times = 0; times < 3; ++times) {
      const Stopwatch watch;
      sinks[0].value += entry->run(rounds);
      taken = std::min(taken, watch.seconds());
    }
    if (taken > kRunSeconds) break;
  }
  const double best = shortest(pool, kSeconds, [&](int64_t index) {
    sinks[static_cast<size_t>(index)].value += entry->run(rounds);
  });
  return static_cast<double>(entry->macs * rounds * pool->threads()) / best;
}

}  // namespace pome::kernels
