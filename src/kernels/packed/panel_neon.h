// NEON: products of many tokens go by panels of one tile. For each 64 columns a panel holds
// [f32 scale [16]] and 1024 signed bytes round(w / scale), in one of two orders:
//   quads   as in a tile: quad after quad, four columns of 16 rows each
//   pairs   64 bits of a row after another: columns [8 c, 8 c + 8) of rows 0, 1, .. 15
#pragma once

#include "kernels/packed/products.h"

namespace pome::kernels {

inline constexpr int64_t kPanelGroupBytes = 64 + kTileRows * kPanelColumns;

enum class PanelOrder : uint8_t { kQuads, kPairs };

struct PanelProduct {
  const std::byte* panel;
  int64_t groups;  // of 64 columns
  const Activations& x;
  float* y;  // of the first token and row
  int64_t ldy;
  int64_t rows;           // of the tile that the matrix has
  float bias[kTileRows];  // zero where there is none
};
// Multiplies tokens [m0, m1).
using PanelMultiply = void (*)(const PanelProduct& product, int64_t m0, int64_t m1);

// gemm by panels: fills those of the tiles and multiplies.
void multiply_tiles_neon(const ProductArgs& args, PanelOrder order, PanelMultiply multiply);

}  // namespace pome::kernels
