#include "quantize/factor.h"

#include <algorithm>
#include <utility>

#include "quantize/matrix_kernel.h"

namespace pome {

namespace {

// Columns that are eliminated at a time, and rows that are brought up to date at a time.
constexpr int64_t kBlock = 64, kRows = 192;

// What is done to the reversed matrix: A = L D L', L unit lower triangular, from the first column
// to the last, each block of columns brought up to date when its turn comes.
class Elimination {
 public:
  Elimination(Factor* factor, double smallest, ThreadPool* pool)
      : n_(factor->n),
        a_(factor->rows.data()),
        d_(factor->diagonal.data()),
        smallest_(smallest),
        pool_(pool),
        scaled_(static_cast<size_t>(kBlock * n_)) {}

  bool run() {
    for (int64_t j = 0; j < n_; j += kBlock) {
      const int64_t width = std::min(kBlock, n_ - j);
      bring_up_to_date(j, width);
      if (!eliminate_diagonal(j, width)) return false;
      const int64_t behind = j + width;
      pool_->parallel_for(n_ - behind, kRows, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) eliminate_row(j, width, behind + row);
      });
    }
    return true;
  }

 private:
  // a[j .., j .. j + width) -= L D L' of the columns before.
  void bring_up_to_date(int64_t j, int64_t width) {
    if (j == 0) return;
    for (int64_t row = 0; row < width; ++row)
      for (int64_t k = 0; k < j; ++k)
        scaled_[static_cast<size_t>(row * j + k)] = at(j + row)[k] * d_[k];
    pool_->parallel_for(n_ - j, kRows, [&](int64_t begin, int64_t end) {
      float update[kRows * kBlock];
      multiply({at(j + begin), n_, end - begin, scaled_.data(), j, width, j, update, kBlock});
      for (int64_t row = begin; row < end; ++row)
        for (int64_t k = 0; k < width; ++k)
          at(j + row)[j + k] -= update[(row - begin) * kBlock + k];
    });
  }

  bool eliminate_diagonal(int64_t j, int64_t width) {
    double block[kBlock][kBlock];
    for (int64_t row = 0; row < width; ++row)
      for (int64_t k = 0; k <= row; ++k) block[row][k] = at(j + row)[j + k];
    for (int64_t k = 0; k < width; ++k) {
      const double pivot = block[k][k];
      if (!(pivot > smallest_)) return false;
      d_[j + k] = static_cast<float>(pivot);
      for (int64_t row = k + 1; row < width; ++row) {
        const double by = block[row][k] / pivot;
        for (int64_t c = k + 1; c <= row; ++c) block[row][c] -= by * block[c][k];
      }
      // Row k is not needed any more: column k below the diagonal becomes that of L.
      for (int64_t row = k + 1; row < width; ++row) block[row][k] /= pivot;
    }
    for (int64_t row = 0; row < width; ++row)
      for (int64_t k = 0; k < width; ++k) {
        if (k < row) at(j + row)[j + k] = static_cast<float>(block[row][k]);
        turned_[k][row] = row > k ? static_cast<float>(block[row][k]) : 0.0f;
      }
    return true;
  }

  void eliminate_row(int64_t j, int64_t width, int64_t row) {
    float left[kBlock] = {};
    float* const to = at(row) + j;
    std::copy_n(to, width, left);
    for (int64_t k = 0; k < width; ++k) {
      const float by = left[k];
      to[k] = by / d_[j + k];
      add_scaled(-by, turned_[k], k, kBlock, left);
    }
  }

  float* at(int64_t row) { return a_ + row * n_; }

  int64_t n_;
  float* a_;
  float* d_;
  double smallest_;
  ThreadPool* pool_;
  std::vector<float> scaled_;
  alignas(64) float turned_[kBlock][kBlock] = {};  // L' of the block on the diagonal, without it
};

// Entry (i, j) below the diagonal changes places with (n - 1 - j, n - 1 - i): U of the matrix from
// L of the reversed one.
void mirror(Factor* factor, ThreadPool* pool) {
  constexpr int64_t kTile = 32;
  const int64_t n = factor->n;
  float* const a = factor->rows.data();
  pool->parallel_for(n, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t j0 = 0; j0 <= begin; j0 += kTile)
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = j0; j < std::min({j0 + kTile, i, n - 1 - i}); ++j)
          std::swap(a[i * n + j], a[(n - 1 - j) * n + n - 1 - i]);
  });
  std::reverse(factor->diagonal.begin(), factor->diagonal.end());
}

}  // namespace

bool factorise(double smallest, Factor* factor, ThreadPool* pool) {
  factor->diagonal.assign(static_cast<size_t>(factor->n), 0.0f);
  if (!Elimination(factor, smallest, pool).run()) return false;
  mirror(factor, pool);
  return true;
}

}  // namespace pome
