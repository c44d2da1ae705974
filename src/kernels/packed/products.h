// Products of integer activations and packed weights.
//
//   gemv   few tokens: weights as they are stored
//   gemm   many tokens: 32 rows become a panel of bytes with a scale per row and 64 columns
//
//   y[m, r] = bias[r] + sum over k of scale[m, block of k] * v[m, k] * w[r, k]
//   v[m, k] = round(x[m, k] / scale), scale = max |x| of the block / largest v
//
//   kFine     gemv   blocks of 32   largest v 127 * 256   two bytes: 256 high + low
//   kByte     gemv   blocks of 32   largest v 127
//   kCoarse   gemm   blocks of 64   largest v 127
//
// Numerics. Integer sums are exact; blocks are added in f32 in ascending order, so that a result
// does not depend on m, on the rows beside it or on threads. An activation is off by at most scale
// / 2; gemm rounds weights to at most 1/250 of the largest value of 64 columns of a row.
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

enum class ActivationBits : uint8_t { kFine, kByte, kCoarse };

// Quantised rows. Columns are padded with zeros to a multiple of 64.
struct Activations {
  static constexpr int64_t kPad = 64;
  ActivationBits bits = ActivationBits::kFine;
  int64_t m = 0, columns = 0;  // padded
  int64_t stride = 0;          // from row to row of `high` and `low`
  int64_t block = 32;          // columns that share a scale: 32, or kPanelColumns when coarse
  int8_t* high = nullptr;      // [m, stride]; v itself unless fine
  int8_t* low = nullptr;       // [m, stride]; fine only
  float* scale = nullptr;      // [m, columns / block]
  // Sums of v, and the same times the scale: over 16 columns, or over the block when coarse.
  int32_t* sum = nullptr;       // [m, sums()]
  float* scaled_sum = nullptr;  // [m, sums()]

  int64_t scales() const { return columns / block; }
  int64_t sums() const { return columns / (bits == ActivationBits::kCoarse ? block : 16); }
};
// What element [m, k] stands for.
inline double activation(const Activations& x, int64_t m, int64_t k) {
  const int64_t at = m * x.stride + k;
  const int v = x.low ? 256 * x.high[at] + x.low[at] : x.high[at];
  return static_cast<double>(x.scale[m * x.scales() + k / x.block]) * v;
}
// Bytes that activations of m rows take, and the view of them in `memory` (aligned to 64 bytes).
int64_t activation_bytes(int64_t m, int64_t columns);
Activations activations_in(std::byte* memory, int64_t m, int64_t columns, ActivationBits bits);
// Columns [first, first + columns) of a row as activations of one row; both are multiples of
// Activations::kPad.
Activations activations_part(const Activations& of, int64_t row, int64_t first, int64_t columns);

using QuantizeKernel = void (*)(const float* x, int64_t columns, const Activations& to,
                                int64_t row);
using QuantizeEntry = KernelEntry<QuantizeKernel>;

struct ProductArgs {
  PackedView w;
  int64_t tile = 0, tiles = 0;  // tiles of rows [tile, tile + tiles)
  Activations x;                // coarse for gemm, not for gemv
  const float* bias = nullptr;  // [rows of w] or null
  float* y = nullptr;           // [m, 16 tiles], of the first of the tiles; rows `ldy` apart
  int64_t ldy = 0;
  std::byte* scratch = nullptr;  // gemm: gemm_panel_bytes(columns), aligned to 64 bytes

  // Where the result of a token and a row of w goes.
  float* y_at(int64_t m, int64_t row) const { return y + m * ldy + row - tile * kTileRows; }
};
using PackedKernel = void (*)(const ProductArgs& args);
// Products of the same x and tiles with two matrices of one format and layout.
using PackedPairKernel = void (*)(const ProductArgs& one, const ProductArgs& other);
struct PackedEntry {
  std::string_view name;
  Isa isa;
  PackedKernel gemv, gemm;
  PackedPairKernel gemv_pair;  // null where reading both side by side gains nothing
  // The one of them that the activations are for.
  void multiply(const ProductArgs& args) const {
    (args.x.bits == ActivationBits::kCoarse ? gemm : gemv)(args);
  }
  void multiply(const ProductArgs& one, const ProductArgs& other) const {
    if (gemv_pair && one.x.bits != ActivationBits::kCoarse && one.w.format == other.w.format) {
      gemv_pair(one, other);
    } else {
      multiply(one);
      multiply(other);
    }
  }
};
int64_t gemm_panel_bytes(int64_t columns);
// What a product takes: gemm pays from a few tokens on. Narrow matrices stay with fine activations:
// models that have them are small, quick anyway, and most easily disturbed.
inline constexpr int64_t kGemmTokens = 8, kWideColumns = 1024;
constexpr ActivationBits activation_bits(int64_t tokens, int64_t columns) {
  if (columns < kWideColumns) return ActivationBits::kFine;
  return tokens < kGemmTokens ? ActivationBits::kByte : ActivationBits::kCoarse;
}

std::span<const QuantizeEntry> quantize_kernels();
std::span<const PackedEntry> packed_kernels();
QuantizeKernel choose_quantize(Isa isa);
// Null when the instruction set has no such kernels: then weights are better kept as stored.
const PackedEntry* choose_packed(Isa isa);

#define POME_QUANTIZE_KERNEL(isa, function) \
  void function(const float* x, int64_t columns, const Activations& to, int64_t row);
#define POME_PACKED_KERNEL(isa, name, gemv, gemm, pair) \
  void gemv(const ProductArgs& args);                   \
  void gemm(const ProductArgs& args);
#include "kernels/packed/kernels.inc"
#undef POME_QUANTIZE_KERNEL
#undef POME_PACKED_KERNEL
#if defined(POME_HAVE_AVX512_KERNELS)
void packed_gemv_pair_avx512vnni(const ProductArgs& one, const ProductArgs& other);
#endif

}  // namespace pome::kernels
