#include "kernels/attention/attention.h"

#include <algorithm>

namespace pome::kernels {

namespace {

constexpr SoftmaxEntry kSoftmaxKernels[] = {
#define POME_SOFTMAX_KERNEL(isa, function) {#function, Isa::isa, function},
#include "kernels/attention/kernels.inc"
};
constexpr WeightedSumEntry kWeightedSumKernels[] = {
#define POME_WEIGHTED_SUM_KERNEL(isa, function) {#function, Isa::isa, function},
#include "kernels/attention/kernels.inc"
};

}  // namespace

std::span<const SoftmaxEntry> softmax_kernels() { return kSoftmaxKernels; }
std::span<const WeightedSumEntry> weighted_sum_kernels() { return kWeightedSumKernels; }

AttentionKernels choose_attention(Isa isa) {
  return {
      choose_panel(isa),
      best_entry(softmax_kernels(), isa, [](const SoftmaxEntry&) { return true; })->run,
      best_entry(weighted_sum_kernels(), isa, [](const WeightedSumEntry&) { return true; })->run};
}

void attention_rows(const AttentionKernels& kernels, const AttentionArgs& args, float* scratch) {
  const int64_t begin = *std::min_element(args.first, args.first + args.rows);
  const int64_t end = *std::max_element(args.last, args.last + args.rows);
  const int64_t keys = end - begin;
  kernels.panel({args.q, args.ldq, args.rows, args.k + begin * args.ldk, args.ldk, keys, args.dim,
                 scratch, keys});
  float factor[kAttentionRows];
  for (int64_t r = 0; r < args.rows; ++r) {
    float* s = scratch + r * keys;
    const int64_t first = args.first[r] - begin, last = args.last[r] - begin;
    factor[r] = kernels.softmax({s + first, last - first, args.scale, args.softcap, args.sinks[r]});
    // A weight of zero leaves the sum of a row as it is, so rows with unequal ranges share the
    // loop.
    std::fill(s, s + first, 0.0f);
    std::fill(s + last, s + keys, 0.0f);
  }
  kernels.weighted_sum({scratch, keys, args.rows, args.v + begin * args.ldv, args.ldv, keys,
                        args.value_dim, factor, args.y, args.ldy});
}

}  // namespace pome::kernels
