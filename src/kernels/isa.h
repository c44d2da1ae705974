// What all kernel families share: which entry of a table fits a processor, and the target regions.
//
// A family is one folder: a header that gives the contract as a formula, kernels.inc with one line
// per kernel, and one file per instruction set. A kernel's line alone yields its declaration, its
// row in the table that the choice, the tests and the benchmarks walk. Kernels are chosen once,
// when a plan is built; there is no dispatch inside loops.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/cpu_features.h"

#if defined(__x86_64__)
#define POME_HAVE_AVX2_KERNELS 1
#define POME_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define POME_INLINE_AVX2 __attribute__((target("avx2,fma,f16c"), always_inline)) inline
#define POME_HAVE_AVX512_KERNELS 1
#define POME_AVX512_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
#define POME_TARGET_AVX512 __attribute__((target(POME_AVX512_FEATURES)))
#define POME_INLINE_AVX512 __attribute__((target(POME_AVX512_FEATURES), always_inline)) inline
#define POME_TARGET_VNNI __attribute__((target(POME_AVX512_FEATURES ",avx512vnni")))
#define POME_INLINE_VNNI \
  __attribute__((target(POME_AVX512_FEATURES ",avx512vnni"), always_inline)) inline
#define POME_TARGET_BF16 __attribute__((target(POME_AVX512_FEATURES ",avx512bf16")))
#define POME_INLINE_BF16 \
  __attribute__((target(POME_AVX512_FEATURES ",avx512bf16"), always_inline)) inline
#define POME_HAVE_AMX_KERNELS 1
#elif defined(__aarch64__)
#define POME_HAVE_NEON_KERNELS 1
#define POME_INLINE_NEON __attribute__((always_inline)) inline
// GCC inlines its intrinsics only into functions of the architecture that they belong to.
#if defined(__clang__)
#define POME_TARGET_DOTPROD __attribute__((target("dotprod")))
#define POME_INLINE_DOTPROD __attribute__((target("dotprod"), always_inline)) inline
#define POME_TARGET_I8MM __attribute__((target("dotprod,i8mm")))
#else
#define POME_TARGET_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define POME_INLINE_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod"), always_inline)) inline
#define POME_TARGET_I8MM __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif
#endif

// Tiles live in registers only when the loops over them are unrolled.
#if defined(__clang__)
#define POME_UNROLL _Pragma("unroll")
#else
#define POME_UNROLL _Pragma("GCC unroll 16")
#endif

namespace pome::kernels {

#if defined(__x86_64__)
// 32-bit sums that stay in registers over a loop. As __m512i and __m256i, which are vectors of
// 64-bit numbers to the compiler, GCC writes every one of them to memory in every round: half the
// speed.
using Int32x16 = int32_t __attribute__((vector_size(64)));
using Int32x8 = int32_t __attribute__((vector_size(32)));
#endif

// A row of a table of kernels; tables that choose by more have rows of their own.
template <typename Kernel>
struct KernelEntry {
  std::string_view name;
  Isa isa;
  Kernel run;
};

// The last entry that `isa` can run and that `fits` accepts: tables list the portable kernel first
// and better ones behind it. Entries of another architecture are not compiled in. Null when none.
template <typename Entry, typename Fits>
const Entry* best_entry(std::span<const Entry> table, Isa isa, Fits fits) {
  const Entry* best = nullptr;
  for (const Entry& entry : table) {
    if (entry.isa <= isa && fits(entry)) best = &entry;
  }
  return best;
}

}  // namespace pome::kernels
