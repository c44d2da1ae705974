// Attention of the query rows that share one key head.
//
//   s[r, j] = f(scale * sum over d of q[r, d] k[j, d])      f(s) = softcap * tanh(s / softcap) or s
//   M[r]    = max over j of s[r, j] (and the sink, when there is one), j in [first[r], last[r])
//   p[r, j] = exp(s[r, j] - M[r])
//   y[r, d] = sum over j of p[r, j] v[j, d] / (sum over j of p[r, j] + exp(sink[r] - M[r]))
//
// The two kernels of this family are softmax_row (s -> p, in place, and the factor 1 / (sum +
// sink)) and weighted_sum (p, v -> y); scores come from kernels/gemm. Numerics: a row's result
// depends on its own q and range only, not on the rows beside it: sums over j run in ascending j.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/gemm/gemm.h"
#include "kernels/isa.h"

namespace pome::kernels {

struct SoftmaxArgs {
  float* s = nullptr;  // [n]: scores in, p out
  int64_t n = 0;
  float scale = 1, softcap = 0;  // 0 = no cap
  const float* sink = nullptr;   // one logit, or null
};
struct WeightedSumArgs {
  const float* p = nullptr;  // [rows, n], row stride ldp
  int64_t ldp = 0, rows = 0;
  const float* v = nullptr;  // [n, d], row stride ldv
  int64_t ldv = 0, n = 0, d = 0;
  const float* factor = nullptr;  // [rows]
  float* y = nullptr;             // y[r, d] = factor[r] * sum over j of p[r, j] v[j, d]
  int64_t ldy = 0;
};
using SoftmaxKernel = float (*)(const SoftmaxArgs& args);
using WeightedSumKernel = void (*)(const WeightedSumArgs& args);

struct SoftmaxEntry {
  std::string_view name;
  Isa isa;
  SoftmaxKernel run;
};
struct WeightedSumEntry {
  std::string_view name;
  Isa isa;
  WeightedSumKernel run;
};
std::span<const SoftmaxEntry> softmax_kernels();
std::span<const WeightedSumEntry> weighted_sum_kernels();

struct AttentionKernels {
  PanelKernel panel = nullptr;
  SoftmaxKernel softmax = nullptr;
  WeightedSumKernel weighted_sum = nullptr;
};
AttentionKernels choose_attention(Isa isa);

inline constexpr int64_t kAttentionRows = 12;  // rows per call, at most

struct AttentionArgs {
  const float* q = nullptr;  // [rows, dim]
  int64_t ldq = 0, rows = 0, dim = 0;
  const float* k = nullptr;  // [keys, dim]
  int64_t ldk = 0;
  const float* v = nullptr;  // [keys, value_dim]
  int64_t ldv = 0, value_dim = 0;
  int64_t first[kAttentionRows] = {}, last[kAttentionRows] = {};  // visible keys; first < last
  float scale = 1, softcap = 0;
  const float* sinks[kAttentionRows] = {};  // null: none
  float* y = nullptr;                       // [rows, value_dim]
  int64_t ldy = 0;
};
// `scratch`: rows * (largest last - smallest first) floats.
void attention_rows(const AttentionKernels& kernels, const AttentionArgs& args, float* scratch);

#define POME_SOFTMAX_KERNEL(isa, function) float function(const SoftmaxArgs& args);
#define POME_WEIGHTED_SUM_KERNEL(isa, function) void function(const WeightedSumArgs& args);
#include "kernels/attention/kernels.inc"

}  // namespace pome::kernels
