// Products of activations and weights, f32 sums.
//
// panel:  y[m, n] = sum over k < K of x[m, k] * w[n, k]                 x, w, y f32 with row
// strides gemv:   y[n]    = sum over k < K of x[k] * decoded(w)[row + n, k]     one token, weights
// as stored
//
// Numerics. Every output is summed on its own in an order that depends on K alone: eight partial
// sums, sum j over k = j, j + 8, j + 16 .. ascending, then ((s0 + s1) + (s2 + s3)) + ((s4 + s5) +
// (s6 + s7)). So within one instruction set the result does not depend on M, N, tile shapes or
// threads, and gemv is bit-equal to decoding the weights and calling panel. AVX2 uses fused
// multiply-add, the portable kernels do not: between them |difference| <= 2 * (K/8 + 4) * 2^-24 *
// sum |x w|.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/isa.h"
#include "kernels/weights/weights.h"

namespace pome::kernels {

struct PanelArgs {
  const float* x = nullptr;  // [m, k], row stride ldx
  int64_t ldx = 0, m = 0;
  const float* w = nullptr;  // [n, k], row stride ldw
  int64_t ldw = 0, n = 0;
  int64_t k = 0;
  float* y = nullptr;  // [m, n], row stride ldy
  int64_t ldy = 0;
};
using PanelKernel = void (*)(const PanelArgs& args);
using GemvKernel = void (*)(const WeightView& w, int64_t row, int64_t rows, const float* x,
                            float* y);

using PanelEntry = KernelEntry<PanelKernel>;
struct GemvEntry {
  std::string_view name;
  Isa isa;
  bool (*fits)(const Encoding& encoding, int64_t columns);
  GemvKernel run;
};
std::span<const PanelEntry> panel_kernels();
std::span<const GemvEntry> gemv_kernels();
PanelKernel choose_panel(Isa isa);
GemvKernel choose_gemv(Isa isa, const Encoding& encoding, int64_t columns);  // null when none fits

// All that a product with one weight matrix needs; chosen once.
struct GemmKernels {
  PanelKernel panel = nullptr;
  DecodeKernel decode = nullptr;
  GemvKernel gemv = nullptr;  // may be null
};
GemmKernels choose_gemm(Isa isa, const Encoding& encoding, int64_t columns);
std::string_view gemm_name(const GemmKernels& kernels);  // for listings

// Rows that are decoded at a time for a product over `columns`, and the floats of scratch they
// take.
int64_t panel_rows(int64_t columns);
int64_t gemm_scratch(int64_t columns);

// y[m, r - row0] = sum over k of x[m, k] * decoded(w)[r, k] for r in [row0, row1), plus bias[r]
// when bias is given. `scratch`: gemm_scratch(w.columns) floats.
struct GemmArgs {
  const float* x = nullptr;
  int64_t ldx = 0, m = 0;
  const float* bias = nullptr;  // indexed by row of w, or null
  float* y = nullptr;           // column 0 belongs to row0
  int64_t ldy = 0;
};
void gemm_rows(const GemmKernels& kernels, const WeightView& w, int64_t row0, int64_t row1,
               const GemmArgs& args, float* scratch);

#define POME_PANEL_KERNEL(isa, function) void function(const PanelArgs& args);
#define POME_GEMV_KERNEL(isa, fits, function) \
  void function(const WeightView& w, int64_t row, int64_t rows, const float* x, float* y);
#include "kernels/gemm/kernels.inc"
#undef POME_PANEL_KERNEL
#undef POME_GEMV_KERNEL

}  // namespace pome::kernels
