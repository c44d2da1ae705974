#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
constexpr UnpackEntry kUnpackKernels[] = {
#define POME_UNPACK_KERNEL(isa, function) {#function, Isa::isa, function},
#include "kernels/attention/kernels.inc"
};
// The first is none, so that the table is not empty where no instruction set has one.
constexpr DirectEntry kDirectKernels[] = {
    {"", Isa::kPortable, false, 0, nullptr, nullptr},
#define POME_DIRECT_KERNEL(isa, rounds, min_rows, scores, mix) \
  {#scores, Isa::isa, rounds, min_rows, scores, mix},
#include "kernels/attention/kernels.inc"
};

constexpr float kLowest = -std::numeric_limits<float>::infinity();

template <typename Entry>
auto best_of(std::span<const Entry> table, Isa isa) {
  return best_entry(table, isa, [](const Entry&) { return true; })->run;
}

int64_t padded(int64_t dim) { return (dim + 31) / 32 * 32; }

// Sums so far of a row, and what a part adds to them. Factors are against the larger maximum.
void join_row(const float* part, const float* __restrict products, int64_t dim, float* total,
              float* __restrict y) {
  if (part[0] == kLowest) return;
  const float largest = std::max(total[0], part[0]);
  const float keep = total[0] == largest ? 1.0f : std::exp(total[0] - largest);
  const float add = part[0] == largest ? 1.0f : std::exp(part[0] - largest);
  total[0] = largest;
  total[1] = total[1] * keep + part[1] * add;
  int64_t d = 0;
  for (; d + 16 <= dim; d += 16)  // a count that compilers make vectors of
    for (int64_t i = d; i < d + 16; ++i) y[i] = y[i] * keep + products[i] * add;
  for (; d < dim; ++d) y[d] = y[d] * keep + products[d] * add;
}

void finish_row(const float* sink, int64_t dim, const float* total, float* y) {
  float factor = 1.0f, sum = total[1];
  if (sink) {
    const float largest = std::max(total[0], *sink);
    factor = std::exp(total[0] - largest);
    sum = sum * factor + std::exp(*sink - largest);
  }
  factor /= sum;
  for (int64_t d = 0; d < dim; ++d) y[d] *= factor;
}

// Rows [begin, end) are all that see the block.
struct RowRange {
  int64_t begin = 0, end = 0;
};
RowRange rows_of(const AttentionArgs& args, int64_t key0, int64_t key1) {
  const auto sees = [&](int64_t r) { return args.first[r] < key1 && args.last[r] > key0; };
  RowRange out{0, args.rows};
  while (out.begin < out.end && !sees(out.begin)) ++out.begin;
  while (out.end > out.begin && !sees(out.end - 1)) --out.end;
  return out;
}

// Scores of one block become p, with the largest score and the sum of each row.
void weigh(const AttentionKernels& kernels, const AttentionArgs& args, RowRange rows, int64_t key0,
           int64_t n, float* s, float* sums) {
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* row = s + (r - rows.begin) * kAttentionKeys;
    const int64_t first = std::clamp<int64_t>(args.first[r] - key0, 0, n);
    const int64_t last = std::clamp<int64_t>(args.last[r] - key0, first, n);
    sums[2 * r] = kLowest;
    sums[2 * r + 1] = 0;
    if (last > first)
      sums[2 * r + 1] =
          kernels.softmax({row + first, last - first, args.scale, args.softcap, &sums[2 * r]});
    // A weight of zero leaves a sum as it is, so rows with unequal ranges share the loop.
    std::fill(row, row + first, 0.0f);
    std::fill(row + last, row + kAttentionKeys, 0.0f);
  }
}

}  // namespace

std::span<const SoftmaxEntry> softmax_kernels() { return kSoftmaxKernels; }
std::span<const WeightedSumEntry> weighted_sum_kernels() { return kWeightedSumKernels; }
std::span<const UnpackEntry> unpack_kernels() { return kUnpackKernels; }
std::span<const DirectEntry> direct_kernels() { return std::span(kDirectKernels).subspan(1); }

AttentionKernels choose_attention(Isa isa, bool exact) {
  AttentionKernels out;
  out.panel = choose_panel(isa);
  out.softmax = best_of(softmax_kernels(), isa);
  out.weighted_sum = best_of(weighted_sum_kernels(), isa);
  out.unpack = best_of(unpack_kernels(), isa);
  out.few = best_entry(direct_kernels(), isa, [](const DirectEntry& e) { return !e.rounds; });
  if (!exact)
    out.many = best_entry(direct_kernels(), isa, [](const DirectEntry& e) { return e.rounds; });
  return out;
}

int64_t direct_scratch(int64_t dim) {
  // Pairs of bfloat16: a block of the cache, and the rows of q or p.
  return padded(dim) / 2 * (kAttentionKeys + kAttentionRows) + kAttentionKeys / 2 * kAttentionRows;
}

int64_t attention_scratch(int64_t dim, int64_t value_dim) {
  const int64_t widest = std::max(dim, value_dim);
  return kAttentionRows * kAttentionKeys + part_floats(kAttentionRows, value_dim) +
         std::max(kAttentionKeys * widest, direct_scratch(widest));
}

int64_t part_floats(int64_t rows, int64_t value_dim) { return rows * (2 + value_dim); }

BlockRange attention_blocks(const AttentionArgs& args) {
  const int64_t begin = *std::min_element(args.first, args.first + args.rows);
  const int64_t end = *std::max_element(args.last, args.last + args.rows);
  return {begin / kAttentionKeys, (end + kAttentionKeys - 1) / kAttentionKeys};
}

void attention_part(const AttentionKernels& kernels, const AttentionArgs& args, int64_t block,
                    float* part, float* scratch) {
  const int64_t key0 = block * kAttentionKeys;
  const int64_t end = *std::max_element(args.last, args.last + args.rows);
  const int64_t n = std::min(kAttentionKeys, end - key0);
  const RowRange rows = rows_of(args, key0, key0 + n);
  for (int64_t r = 0; r < args.rows; ++r) part[2 * r] = kLowest;
  const int64_t count = rows.end - rows.begin;
  if (count <= 0) return;
  float* s = scratch;
  float* rest = scratch + kAttentionRows * kAttentionKeys;
  const float* q = args.q + rows.begin * args.ldq;
  float* y = part + 2 * args.rows + rows.begin * args.v.dim;
  const KvRows k = args.k.from(key0), v = args.v.from(key0);
  const DirectEntry* direct =
      kernels.many && count >= kernels.many->min_rows ? kernels.many : kernels.few;
  if (direct) {
    direct->scores({q, args.ldq, count, k, n, s, nullptr, 0, rest});
    weigh(kernels, args, rows, key0, n, s, part);
    direct->mix({nullptr, 0, count, v, n, s, y, v.dim, rest});
    return;
  }
  const auto as_floats = [&](const KvRows& cache) {
    if (cache.kind == KvKind::kF32)
      return std::pair(reinterpret_cast<const float*>(cache.data), cache.row_bytes / 4);
    kernels.unpack(cache, n, rest, cache.dim);
    return std::pair(const_cast<const float*>(rest), cache.dim);
  };
  const auto [keys, key_stride] = as_floats(k);
  kernels.panel({q, args.ldq, count, keys, key_stride, n, k.dim, s, kAttentionKeys});
  weigh(kernels, args, rows, key0, n, s, part);
  const auto [values, value_stride] = as_floats(v);
  kernels.weighted_sum({s, kAttentionKeys, count, values, value_stride, n, v.dim, y, v.dim});
}

namespace {

struct Totals {
  float sums[2 * kAttentionRows];
};
void start(const AttentionArgs& args, RowRange rows, Totals* totals) {
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    totals->sums[2 * r] = kLowest;
    totals->sums[2 * r + 1] = 0;
    std::fill_n(args.y + r * args.ldy, args.v.dim, 0.0f);
  }
}
void join(const AttentionArgs& args, RowRange rows, const float* part, Totals* totals) {
  for (int64_t r = rows.begin; r < rows.end; ++r)
    join_row(part + 2 * r, part + 2 * args.rows + r * args.v.dim, args.v.dim, totals->sums + 2 * r,
             args.y + r * args.ldy);
}
void finish(const AttentionArgs& args, RowRange rows, const Totals& totals) {
  for (int64_t r = rows.begin; r < rows.end; ++r)
    finish_row(args.sinks[r], args.v.dim, totals.sums + 2 * r, args.y + r * args.ldy);
}

}  // namespace

void attention_join(const AttentionArgs& args, const float* parts, int64_t begin, int64_t end) {
  Totals totals;
  const RowRange rows{begin, end};
  start(args, rows, &totals);
  const BlockRange range = attention_blocks(args);
  for (int64_t b = range.begin; b < range.end; ++b) {
    join(args, rows, parts, &totals);
    parts += part_floats(args.rows, args.v.dim);
  }
  finish(args, rows, totals);
}

void attention_rows(const AttentionKernels& kernels, const AttentionArgs& args, float* scratch) {
  Totals totals;
  const RowRange rows{0, args.rows};
  start(args, rows, &totals);
  float* part = scratch;
  scratch += part_floats(kAttentionRows, args.v.dim);
  const BlockRange range = attention_blocks(args);
  for (int64_t b = range.begin; b < range.end; ++b) {
    if (args.cancel && args.cancel->cancelled()) return;
    attention_part(kernels, args, b, part, scratch);
    join(args, rows, part, &totals);
  }
  finish(args, rows, totals);
}

}  // namespace pome::kernels
