// H = U D U' of a positive definite matrix, U unit upper triangular: a Cholesky factor made from
// the last column to the first.
//
// Blocks of columns, binary32 products at the speed of a matrix kernel, binary64 inside of the
// blocks on the diagonal: n^3 / 6 multiplications, in place. U D U' gives H_ij back but for a few
// units of binary32's last place of sqrt(H_ii H_jj).
//
// Deterministic within one instruction set. Thread safety: pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"

namespace pome {

struct Factor {
  int64_t n = 0;
  std::vector<float> rows;      // [n, n]; row j: U_ij for i < j, and behind them nothing of use
  std::vector<float> diagonal;  // D
};

// `factor->rows` holds H with its lines and columns in reverse order, the diagonal and what is left
// of it. False where a pivot is not above `smallest` >= 0; the matrix is lost then. The same for
// every number of threads.
bool factorise(double smallest, Factor* factor, ThreadPool* pool);

}  // namespace pome
