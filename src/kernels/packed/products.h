// Products of int8 activations and packed weights.
//
//   quantize   q[m, k] = round(x[m, k] / scale[m, k / block]), scale = max |x| of the block / 127
//   gemv       y[m, r] = sum over k of scale * q[m, k] * w[r, k]       few tokens: weights are read
//   once gemm       the same for many tokens: a panel of 32 rows is turned into bytes with one
//   scale per
//              row and 64 columns, then multiplied by all tokens
//
// Numerics. Integer sums are exact; blocks are added in f32 in ascending order, so that a result
// does not depend on m, on the rows beside it or on threads. Errors against the weights as stored
// and activations in f32: activations are off by at most scale / 2 (block = 32 columns in gemv, 128
// in gemm); gemm rounds weights to at most 1/250 of the largest value of 64 columns of a row.
//
// Thread safety: pure functions over memory of the caller.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/isa.h"
#include "kernels/packed/packed.h"

namespace pome::kernels {

// Columns that share a scale in gemm: of the panel and of activations.
inline constexpr int64_t kPanelColumns = 64;

// Quantised rows. Columns are padded with zeros to a multiple of 128.
struct Activations {
  static constexpr int64_t kPad = 128;
  int64_t m = 0, columns = 0;  // padded
  int64_t block = 32;          // columns that share a scale: 32 or kPanelColumns
  int8_t* q = nullptr;         // [m, columns]
  float* scale = nullptr;      // [m, columns / block]
  // Sums of q, and the same times the scale: over 16 columns (block 32) or over the block.
  int32_t* sum = nullptr;       // [m, sums()]
  float* scaled_sum = nullptr;  // [m, sums()]

  int64_t scales() const { return columns / block; }
  int64_t sums() const { return block == 32 ? columns / 16 : columns / block; }
};
// Bytes that activations of m rows take, and the view of them in `memory` (aligned to 64 bytes).
int64_t activation_bytes(int64_t m, int64_t columns);
Activations activations_in(std::byte* memory, int64_t m, int64_t columns, int64_t block);

using QuantizeKernel = void (*)(const float* x, int64_t columns, const Activations& to,
                                int64_t row);
struct QuantizeEntry {
  std::string_view name;
  Isa isa;
  QuantizeKernel run;
};

struct ProductArgs {
  PackedView w;
  int64_t tile = 0, tiles = 0;  // tiles of rows [tile, tile + tiles)
  Activations x;                // block 32 for gemv, kPanelColumns for gemm
  const float* bias = nullptr;  // [rows of w] or null
  float* y = nullptr;           // y[m, r]: row r of w in column r
  int64_t ldy = 0;
  std::byte* scratch = nullptr;  // gemm: gemm_panel_bytes(columns), aligned to 64 bytes
};
using PackedKernel = void (*)(const ProductArgs& args);
struct PackedEntry {
  std::string_view name;
  Isa isa;
  PackedKernel gemv, gemm;
};
int64_t gemm_panel_bytes(int64_t columns);
// Below this many tokens gemv is faster than gemm.
inline constexpr int64_t kGemmTokens = 8;

std::span<const QuantizeEntry> quantize_kernels();
std::span<const PackedEntry> packed_kernels();
QuantizeKernel choose_quantize(Isa isa);
// Null when the instruction set has no such kernels: then weights are better kept as stored.
const PackedEntry* choose_packed(Isa isa);

#define POME_QUANTIZE_KERNEL(isa, function) \
  void function(const float* x, int64_t columns, const Activations& to, int64_t row);
#define POME_PACKED_KERNEL(isa, name, gemv, gemm) \
  void gemv(const ProductArgs& args);             \
  void gemm(const ProductArgs& args);
#include "kernels/packed/kernels.inc"
#undef POME_QUANTIZE_KERNEL
#undef POME_PACKED_KERNEL

}  // namespace pome::kernels
