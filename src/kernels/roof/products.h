// The loop of all roofs of products.
//
// POME_ROOF_PRODUCTS(reg, zero, product, add) runs `rounds` rounds over `sum`, an array of vectors:
// sum[j] = product for each j, with the factors `x` and `y`, all names of the function around it.
// Then sum[0] = add for each j > 0. `reg` is the constraint of a vector register.
//
// The empty assembler code makes each sum and each factor a value that the compiler does not know:
// nothing is computed once for several products. Sums are added in registers: if their address were
// taken, they would be stored in every round.
#pragma once

#include "kernels/isa.h"

#if defined(__clang__)
#define POME_UNROLL_SUMS _Pragma("unroll")
#else
#define POME_UNROLL_SUMS _Pragma("GCC unroll 32")
#endif

#define POME_ROOF_PRODUCTS(reg, zero, product, add)    \
  do {                                                 \
    constexpr int kCount = sizeof sum / sizeof sum[0]; \
    POME_UNROLL_SUMS                                   \
    for (int j = 0; j < kCount; ++j) {                 \
      sum[j] = zero;                                   \
      __asm__ volatile("" : reg(sum[j]));              \
    }                                                  \
    for (int64_t round = 0; round < rounds; ++round) { \
      POME_UNROLL_SUMS                                 \
      for (int j = 0; j < kCount; ++j) {               \
        __asm__ volatile("" : reg(x), reg(y));         \
        sum[j] = product;                              \
      }                                                \
    }                                                  \
    POME_UNROLL_SUMS                                   \
    for (int j = 1; j < kCount; ++j) sum[0] = add;     \
  } while (false)
