// Attention of the query rows that share one key head, over blocks of keys.
//
//   s[r, j] = f(scale * sum over d of q[r, d] k[j, d])      f(s) = softcap * tanh(s / softcap) or s
//   M[r]    = max over j of s[r, j] (and the sink, when there is one), j in [first[r], last[r])
//   p[r, j] = exp(s[r, j] - M[r])
//   y[r, d] = sum over j of p[r, j] v[j, d] / (sum over j of p[r, j] + exp(sink[r] - M[r]))
//
// Keys are taken in blocks of kAttentionKeys that begin at multiples of it. A block on its own
// gives, for each row, its largest score, the sum of its p (against that score) and the products
// with v: a *part*. Parts are joined in ascending order of blocks. So a row's result depends on its
// own q and range only: not on the rows beside it, nor on who computes which block. That holds for
// every choice of kernels() but the one for many rows of plans that are not exact, which takes
// q, k, p and v in bfloat16 (products and sums f32).
//
// Tables: softmax (scores of a block -> p), unpack (rows of a cache -> f32) and weighted_sum serve
// every instruction set, with the panels of kernels/gemm for the scores; *direct* kernels read the
// cache themselves.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/progress.h"
#include "kernels/attention/kv_rows.h"
#include "kernels/gemm/gemm.h"
#include "kernels/isa.h"

namespace pome::kernels {

inline constexpr int64_t kAttentionKeys = 128;  // keys of a block
inline constexpr int64_t kAttentionRows = 128;  // rows per call, at most

struct SoftmaxArgs {
  float* s = nullptr;  // [n]: scores in, p out; n >= 1
  int64_t n = 0;
  float scale = 1, softcap = 0;  // 0 = no cap
  float* largest = nullptr;      // takes the largest score; p is relative to it
};
// Gives the sum of p. The exponential has a relative error of at most 2^-22, and is 0 below -87.3.
using SoftmaxKernel = float (*)(const SoftmaxArgs& args);

struct WeightedSumArgs {
  const float* p = nullptr;  // [rows, n], row stride ldp
  int64_t ldp = 0, rows = 0;
  const float* v = nullptr;  // [n, d], row stride ldv
  int64_t ldv = 0, n = 0, d = 0;
  float* y = nullptr;  // y[r, d] = sum over j of p[r, j] v[j, d]
  int64_t ldy = 0;
};
using WeightedSumKernel = void (*)(const WeightedSumArgs& args);

// x[i, d] = row i of a cache, row stride ldx.
using UnpackKernel = void (*)(const KvRows& rows, int64_t n, float* x, int64_t ldx);

// Both read `rows` of a cache themselves. Row strides of s and p: kAttentionKeys; scores may write
// to all of s, mix may read all of p (which is zero from n on).
struct DirectArgs {
  const float* q = nullptr;  // [rows, dim], stride ldq      (scores)
  int64_t ldq = 0, rows = 0;
  KvRows cache;  // of the block
  int64_t n = 0;
  float* s = nullptr;  // scores: s[r, j] = sum over d of q[r, d] k[j, d]; mix: p
  float* y = nullptr;  // mix: y[r, d] = sum over j of p[r, j] v[j, d]
  int64_t ldy = 0;
  float* scratch = nullptr;  // direct_scratch(dim) floats
};
using DirectKernel = void (*)(const DirectArgs& args);

using SoftmaxEntry = KernelEntry<SoftmaxKernel>;
using WeightedSumEntry = KernelEntry<WeightedSumKernel>;
using UnpackEntry = KernelEntry<UnpackKernel>;
struct DirectEntry {
  std::string_view name;
  Isa isa;
  bool rounds;       // to bfloat16: not for exact plans
  int64_t min_rows;  // from where it is worth its preparation
  DirectKernel scores, mix;
};
std::span<const SoftmaxEntry> softmax_kernels();
std::span<const WeightedSumEntry> weighted_sum_kernels();
std::span<const UnpackEntry> unpack_kernels();
std::span<const DirectEntry> direct_kernels();

struct AttentionKernels {
  PanelKernel panel = nullptr;
  SoftmaxKernel softmax = nullptr;
  WeightedSumKernel weighted_sum = nullptr;
  UnpackKernel unpack = nullptr;
  const DirectEntry* few = nullptr;   // null: panel, unpack and weighted_sum
  const DirectEntry* many = nullptr;  // null: as for few
};
AttentionKernels choose_attention(Isa isa, bool exact);

struct AttentionArgs {
  const float* q = nullptr;  // [rows, dim]
  int64_t ldq = 0, rows = 0;
  KvRows k, v;
  int64_t first[kAttentionRows] = {}, last[kAttentionRows] = {};  // visible keys; first < last
  float scale = 1, softcap = 0;
  const float* sinks[kAttentionRows] = {};  // null: none
  float* y = nullptr;                       // [rows, v.dim]
  int64_t ldy = 0;
  const CancelToken* cancel = nullptr;  // looked at before each block; then y means nothing
};

int64_t direct_scratch(int64_t dim);
int64_t attention_scratch(int64_t dim, int64_t value_dim);  // floats of the calls below
void attention_rows(const AttentionKernels& kernels, const AttentionArgs& args, float* scratch);

// The same in pieces: parts of single blocks by anyone, joined row by row. A part is
// part_floats() long: rows of [largest, sum], then rows of v.dim.
struct BlockRange {
  int64_t begin = 0, end = 0;  // blocks that some row sees
};
BlockRange attention_blocks(const AttentionArgs& args);
int64_t part_floats(int64_t rows, int64_t value_dim);
void attention_part(const AttentionKernels& kernels, const AttentionArgs& args, int64_t block,
                    float* part, float* scratch);
// Rows [begin, end). `parts`: those of all blocks of the range, in order.
void attention_join(const AttentionArgs& args, const float* parts, int64_t begin, int64_t end);

#define POME_SOFTMAX_KERNEL(isa, function) float function(const SoftmaxArgs& args);
#define POME_WEIGHTED_SUM_KERNEL(isa, function) void function(const WeightedSumArgs& args);
#define POME_UNPACK_KERNEL(isa, function) \
  void function(const KvRows& rows, int64_t n, float* x, int64_t ldx);
#define POME_DIRECT_KERNEL(isa, rounds, min_rows, scores, mix) \
  void scores(const DirectArgs& args);                         \
  void mix(const DirectArgs& args);
#include "kernels/attention/kernels.inc"

}  // namespace pome::kernels
