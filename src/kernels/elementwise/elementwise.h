// Maps over vectors of f32, and the row operations around the products.
//
//   map      y[i] = f(x[i])                       kExp, kSilu, kGelu, kGeluTanh, kTanh, kRelu
//              silu(x) = x / (1 + e^-x)
//              gelu(x) = x / 2 * (1 + erf(x / sqrt 2))
//              gelu_tanh(x) = x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
//   zip      y[i] = f(a[i], b[i])                 kAdd, kMul
//   norm     y[r, d] = x[r, d] / sqrt(mean over d of x[r, d]^2 + epsilon) * gain[d]
//   rope     over pairs (i, j) = (p, p + h) or (2p, 2p + 1), p < h = rotary / 2, of each row:
//              y[i] = x[i] cos[p] - x[j] sin[p],   y[j] = x[j] cos[p] + x[i] sin[p]
//            and y[d] = x[d] for d >= rotary
//
// In place (y == x) is allowed everywhere. Numerics: exp has a relative error below 2^-22 for
// -87.3 <= x <= 88.7; below it is 0, above infinity; NaN stays NaN. The others stay within 4e-7 *
// max(|f(x)|, |x|) of f (tanh: 4e-7 relative). An element's result does not depend on its place in
// the vector.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/isa.h"

namespace pome::kernels {

enum class MapOp : uint8_t { kExp, kSilu, kGelu, kGeluTanh, kTanh, kRelu };
enum class ZipOp : uint8_t { kAdd, kMul };

struct NormArgs {
  const float* x = nullptr;     // [rows, d]
  const float* gain = nullptr;  // [d]
  float* y = nullptr;           // [rows, d]
  int64_t rows = 0, d = 0;
  double epsilon = 0;
};
struct RopeArgs {
  const float* x = nullptr;    // [rows, d]
  const float* cos = nullptr;  // [rows, rotary / 2]
  const float* sin = nullptr;
  float* y = nullptr;
  int64_t rows = 0, d = 0, rotary = 0;
  bool interleaved = false;  // pairs (2p, 2p + 1) instead of halves
};

using MapKernel = void (*)(const float* x, float* y, int64_t n);
using ZipKernel = void (*)(const float* a, const float* b, float* y, int64_t n);
using NormKernel = void (*)(const NormArgs& args);
using RopeKernel = void (*)(const RopeArgs& args);

struct MapEntry {
  std::string_view name;
  Isa isa;
  MapOp op;
  MapKernel run;
};
struct ZipEntry {
  std::string_view name;
  Isa isa;
  ZipOp op;
  ZipKernel run;
};
struct NormEntry {
  std::string_view name;
  Isa isa;
  NormKernel run;
};
struct RopeEntry {
  std::string_view name;
  Isa isa;
  RopeKernel run;
};
std::span<const MapEntry> map_kernels();
std::span<const ZipEntry> zip_kernels();
std::span<const NormEntry> norm_kernels();
std::span<const RopeEntry> rope_kernels();
MapKernel choose_map(Isa isa, MapOp op);
ZipKernel choose_zip(Isa isa, ZipOp op);
NormKernel choose_norm(Isa isa);
RopeKernel choose_rope(Isa isa);

#define POME_MAP_KERNEL(isa, op, function) void function(const float* x, float* y, int64_t n);
#define POME_ZIP_KERNEL(isa, op, function) \
  void function(const float* a, const float* b, float* y, int64_t n);
#define POME_NORM_KERNEL(isa, function) void function(const NormArgs& args);
#define POME_ROPE_KERNEL(isa, function) void function(const RopeArgs& args);
#include "kernels/elementwise/kernels.inc"

}  // namespace pome::kernels
