// Products of many tokens with float weights, both rounded to bfloat16, sums in f32.
//
//   round     q[m, k] = bf16(x[m, k])
//   multiply  y[m, r] = bias[r] + sum over k of q[m, k] * bf16(w[r, k])      w: f32, f16 or bf16
//
// Numerics. Rounding to bfloat16 is to nearest even: each factor is off by at most 2^-9 of itself,
// and bf16 weights are exact. Every sum runs over pairs of columns in ascending order on its own,
// so that it does not depend on m, tiles or threads. Subnormal factors count as zero (that is how
// the instruction works).
//
// Thread safety: pure functions over memory of the caller.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/isa.h"
#include "kernels/weights/weights.h"

namespace pome::kernels {

inline constexpr int64_t kBf16Pad = 32;   // columns are padded with zeros to a multiple of this
inline constexpr int64_t kBf16Rows = 32;  // rows of w that a panel holds

struct Bf16Args {
  WeightView w;
  int64_t row = 0, rows = 0;    // rows of w; row0 .. row0 + rows
  const uint16_t* x = nullptr;  // [m, padded columns]
  int64_t m = 0;
  const float* bias = nullptr;  // indexed by row of w, or null
  float* y = nullptr;           // y[m, r]: row r of w in column r
  int64_t ldy = 0;
  std::byte* scratch = nullptr;  // bf16_panel_bytes(columns), aligned to 64 bytes
};
using Bf16RoundKernel = void (*)(const float* x, int64_t columns, uint16_t* to);
using Bf16MultiplyKernel = void (*)(const Bf16Args& args);
struct Bf16Entry {
  std::string_view name;
  Isa isa;
  Bf16RoundKernel round;
  Bf16MultiplyKernel multiply;
};

int64_t bf16_padded(int64_t columns);
int64_t bf16_panel_bytes(int64_t columns);
std::span<const Bf16Entry> bf16_kernels();
// Null when the instruction set has no such products: then f32 is as fast.
const Bf16Entry* choose_bf16(Isa isa, const Encoding& encoding);
// From how many tokens, and columns, the rounding pays (narrow models are quick anyway).
inline constexpr int64_t kBf16Tokens = 8, kBf16Columns = 1024;

#define POME_BF16_KERNEL(isa, name, round, multiply)         \
  void round(const float* x, int64_t columns, uint16_t* to); \
  void multiply(const Bf16Args& args);
#include "kernels/bf16/kernels.inc"
#undef POME_BF16_KERNEL

}  // namespace pome::kernels
