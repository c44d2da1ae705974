// Rows that are longer or shorter than those of a constant: for formats whose rows are whole
// groups, and for parts of products.
#pragma once

#include <cstdint>

#include "graph/constant.h"

namespace pome {

// With zeros behind, and the first columns: f32 out. What is canonical of padded rows are the rows
// before, of cut ones those before they were padded.
ConstantDataPtr pad_columns(ConstantDataPtr in, int64_t columns);
ConstantDataPtr cut_columns(ConstantDataPtr in, int64_t columns);
// Columns [first, first + columns).
ConstantDataPtr slice_columns(ConstantDataPtr in, int64_t first, int64_t columns);

}  // namespace pome
