// One order of accumulation for everything: each output element is the sum over k = 0 .. K-1 of
// products rounded one by one to f32, in one accumulator. Blocking, packing, vector width and
// threads change when an element is computed, never how; so matmul is bit-equal to matmul_plain on
// every machine. That costs the fused multiply-add, which rounds differently.
#include <algorithm>
#include <cstring>

#include "base/cpu_features.h"
#include "refops/refops.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define POME_REFOPS_X86 1
#else
#define POME_REFOPS_X86 0
#endif

namespace pome::refops {

namespace {

constexpr int64_t kPanel = 32;    // columns per packed panel
constexpr int64_t kDepth = 256;   // k per pass: a panel of 256 x 32 floats is 32 KiB
constexpr int64_t kColumns = 64;  // columns per task
constexpr int64_t kRowBlock = 192;
static_assert(kColumns % kPanel == 0);

// c[r, 0..kPanel) (+)= sum_k a[r * lda + k] * panel[k * kPanel + 0..kPanel)
struct MicroArgs {
  const float* a;
  int64_t lda;
  const float* panel;
  int64_t depth;
  float* c;
  int64_t ldc;
  bool first;  // start from 0 instead of from c
};
using Micro = void (*)(const MicroArgs&, int64_t rows);
// panel[k * kPanel + j] = y[j * ldy + k], j < columns; columns beyond are zeroed
using PackTransposed = void (*)(const float* y, int64_t ldy, int64_t columns, int64_t depth,
                                float* panel);

namespace portable {
#define POME_TARGET
constexpr int kLanes = 4, kTileRows = 4;
#include "refops/matmul_tile.inc"
#undef POME_TARGET
}  // namespace portable
#if POME_REFOPS_X86
namespace avx2 {
#define POME_TARGET __attribute__((target("avx2")))
constexpr int kLanes = 8, kTileRows = 4;
#include "refops/matmul_tile.inc"
#undef POME_TARGET
}  // namespace avx2
namespace avx512 {
#define POME_TARGET __attribute__((target("avx512f")))
constexpr int kLanes = 16, kTileRows = 6;
#include "refops/matmul_tile.inc"
#undef POME_TARGET
}  // namespace avx512
#endif

void pack_transposed_portable(const float* y, int64_t ldy, int64_t columns, int64_t depth,
                              float* panel) {
  for (int64_t k0 = 0; k0 < depth; k0 += 8) {
    const int64_t k1 = std::min(depth, k0 + 8);
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t k = k0; k < k1; ++k) panel[k * kPanel + j] = y[j * ldy + k];
  }
  for (int64_t j = columns; j < kPanel; ++j)
    for (int64_t k = 0; k < depth; ++k) panel[k * kPanel + j] = 0.0f;
}

#if POME_REFOPS_X86
__attribute__((target("avx2"))) void pack_transposed_avx2(const float* y, int64_t ldy,
                                                          int64_t columns, int64_t depth,
                                                          float* panel) {
  const int64_t whole_columns = columns & ~int64_t{7}, whole_depth = depth & ~int64_t{7};
  for (int64_t j = 0; j < whole_columns; j += 8) {
    for (int64_t k = 0; k < whole_depth; k += 8) {
      const float* p = y + j * ldy + k;
      __m256 r[8];
      for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(p + i * ldy);
      __m256 t[8];
      for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
      }
      for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
      }
      float* to = panel + k * kPanel + j;
      for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(to + i * kPanel, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * kPanel, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
      }
    }
    for (int64_t k = whole_depth; k < depth; ++k)
      for (int64_t i = 0; i < 8; ++i) panel[k * kPanel + j + i] = y[(j + i) * ldy + k];
  }
  for (int64_t k = 0; whole_columns < kPanel && k < depth; ++k)
    for (int64_t j = whole_columns; j < kPanel; ++j)
      panel[k * kPanel + j] = j < columns ? y[j * ldy + k] : 0.0f;
}
#endif

struct Kernels {
  Micro micro = portable::micro;
  PackTransposed pack_transposed = pack_transposed_portable;
};

Kernels choose_kernels() {
  Kernels kernels;
#if POME_REFOPS_X86
  const Result<Isa> isa = selected_isa();
  if (isa.ok() && *isa >= Isa::kAvx2 && *isa < Isa::kNeon) {
    kernels.micro = *isa >= Isa::kAvx512 ? avx512::micro : avx2::micro;
    kernels.pack_transposed = pack_transposed_avx2;
  }
#endif
  return kernels;
}

// One matrix product: x [M, K], y [K, N] or [N, K], out [M, N], all dense.
struct Problem {
  const float* x;
  const float* y;
  float* out;
  int64_t m, n, k;
  bool transpose_y;
};

// Rows [row, row + rows) times columns [column, column + columns) of the result.
void compute_tile(const Kernels& kernels, const Problem& p, int64_t row, int64_t rows,
                  int64_t column, int64_t columns) {
  alignas(64) thread_local float panel[kDepth * kPanel];
  alignas(64) thread_local float edge[kRowBlock * kPanel];
  for (int64_t j = column; j < column + columns; j += kPanel) {
    const int64_t width = std::min(kPanel, column + columns - j);
    const bool whole = width == kPanel;
    for (int64_t k = 0; k < p.k; k += kDepth) {
      const int64_t depth = std::min(kDepth, p.k - k);
      const float* packed = panel;
      if (p.transpose_y) {
        kernels.pack_transposed(p.y + j * p.k + k, p.k, width, depth, panel);
      } else {
        for (int64_t i = 0; i < depth; ++i) {
          std::memcpy(panel + i * kPanel, p.y + (k + i) * p.n + j,
                      static_cast<size_t>(width) * sizeof(float));
          std::fill(panel + i * kPanel + width, panel + (i + 1) * kPanel, 0.0f);
        }
      }
      kernels.micro({p.x + row * p.k + k, p.k, packed, depth, whole ? p.out + row * p.n + j : edge,
                     whole ? p.n : kPanel, k == 0},
                    rows);
    }
    for (int64_t r = 0; !whole && r < rows; ++r)
      std::memcpy(p.out + (row + r) * p.n + j, edge + r * kPanel,
                  static_cast<size_t>(width) * sizeof(float));
  }
}

struct Layout {
  Shape out_shape;
  Shape batch;
  std::vector<int64_t> x_strides, y_strides;  // of the batch axes, in matrices
  int64_t m, n, k;
};

Layout layout_of(const Tensor& x, const Tensor& y, bool transpose_y) {
  POME_CHECK(x.rank() >= 2 && y.rank() >= 2);
  POME_CHECK(x.dtype() == DType::kF32 && y.dtype() == DType::kF32);
  Layout l;
  l.m = x.dim(-2);
  l.k = x.dim(-1);
  l.n = transpose_y ? y.dim(-2) : y.dim(-1);
  POME_CHECK(l.k == (transpose_y ? y.dim(-1) : y.dim(-2)));
  const Shape bx(x.shape().begin(), x.shape().end() - 2),
      by(y.shape().begin(), y.shape().end() - 2);
  const auto batch = broadcast_shape(bx, by);
  POME_CHECK(batch.has_value());
  l.batch = *batch;
  l.x_strides = broadcast_strides(bx, l.batch);
  l.y_strides = broadcast_strides(by, l.batch);
  l.out_shape = l.batch;
  l.out_shape.push_back(l.m);
  l.out_shape.push_back(l.n);
  return l;
}

}  // namespace

Tensor matmul_plain(const Tensor& x, const Tensor& y, bool transpose_y) {
  const Layout l = layout_of(x, y, transpose_y);
  Tensor out = Tensor::zeros(DType::kF32, l.out_shape);
  const float* px = x.f32().data();
  const float* py = y.f32().data();
  float* po = out.mutable_as<float>().data();
  for_each_offset(l.batch, l.x_strides, l.y_strides, [&](int64_t b, int64_t xb, int64_t yb) {
    const float* a = px + xb * l.m * l.k;
    const float* w = py + yb * l.k * l.n;
    for (int64_t i = 0; i < l.m; ++i) {
      for (int64_t j = 0; j < l.n; ++j) {
        float sum = 0.0f;
        for (int64_t k = 0; k < l.k; ++k)
          sum += a[i * l.k + k] * (transpose_y ? w[j * l.k + k] : w[k * l.n + j]);
        po[(b * l.m + i) * l.n + j] = sum;
      }
    }
  });
  return out;
}

Tensor matmul(const Tensor& x, const Tensor& y, bool transpose_y, ThreadPool* pool) {
  static const Kernels kernels = choose_kernels();
  const Layout l = layout_of(x, y, transpose_y);
  Tensor out = Tensor::zeros(DType::kF32, l.out_shape);
  if (out.count() == 0 || l.k == 0) return out;
  std::vector<Problem> problems;
  const float* px = x.f32().data();
  const float* py = y.f32().data();
  float* po = out.mutable_as<float>().data();
  for_each_offset(l.batch, l.x_strides, l.y_strides, [&](int64_t b, int64_t xb, int64_t yb) {
    problems.push_back(
        {px + xb * l.m * l.k, py + yb * l.k * l.n, po + b * l.m * l.n, l.m, l.n, l.k, transpose_y});
  });
  if (y.rank() == 2 && problems.size() > 1) {
    // One matrix for all: the batch axes of x are just more rows.
    problems = {{px, py, po, out.count() / l.n, l.n, l.k, transpose_y}};
  }
  const int64_t rows = problems.front().m;
  const int64_t row_tiles = (rows + kRowBlock - 1) / kRowBlock;
  const int64_t column_tiles = (l.n + kColumns - 1) / kColumns;
  const int64_t tiles_per_matrix = row_tiles * column_tiles;
  const int64_t tiles = tiles_per_matrix * static_cast<int64_t>(problems.size());
  const auto body = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Problem& p = problems[static_cast<size_t>(t / tiles_per_matrix)];
      const int64_t row = t % tiles_per_matrix / column_tiles * kRowBlock;
      const int64_t column = t % column_tiles * kColumns;
      compute_tile(kernels, p, row, std::min(kRowBlock, rows - row), column,
                   std::min(kColumns, l.n - column));
    }
  };
  // Waking threads costs more than a small product.
  const int64_t work = static_cast<int64_t>(problems.size()) * rows * l.n * l.k;
  if (pool == nullptr || pool->threads() == 1 || tiles == 1 || work < (int64_t{1} << 17))
    body(0, tiles);
  else
    pool->parallel_for(tiles, 1, body);
  return out;
}

}  // namespace pome::refops
