// Panels: weights as bytes, what products of many tokens multiply.
//
// For each 64 columns of a tile  [f32 scale [16]] [16 quads],  byte = round(w / scale) + 128, or
// without the 128 and signed. |byte - 128| <= 127, but for columns beyond the matrix, where it may
// be anything: activations are zero there.
#pragma once

#include "kernels/packed/products.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

inline constexpr int64_t kPanelGroupBytes = 64 + kTileRows * kPanelColumns;

enum class PanelBytes : uint8_t { kUnsigned, kSigned };
void fill_panel_avx512(const PackedView& w, int64_t tile, PanelBytes bytes, std::byte* panel);

}  // namespace pome::kernels
#endif
