// Panels: 32 rows of weights in bfloat16, what products multiply. Pair of columns after pair
//
//   [tile 0: 16 rows] [tile 1],  64 bytes each, two bf16 in each lane
//
// Columns are padded with zeros as those of x, rows with zeros to 32.
#pragma once

#include "kernels/bf16/bf16.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

// Rows [row, row + rows) of w, at most 32.
void bf16_fill_panel_avx512(const WeightView& w, int64_t row, int64_t rows, std::byte* panel);

}  // namespace pome::kernels
#endif
