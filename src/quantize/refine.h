// What is still to be had when rows are rounded: levels, one column at a time, against what all
// other columns leave (coordinate descent). No step makes e H e' larger.
//
// Columns come in blocks, whose gradients e H are one matrix product of all rows. Rows are
// independent of each other. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "quantize/quadratic_form.h"
#include "quantize/row_grid.h"

namespace pome {

// One round over all columns. Gives by how much e H e' of all rows fell.
double refine_levels(const QuadraticForm& form, std::span<const float> values,
                     std::span<const RowGrid> grids, std::span<uint8_t> levels);

}  // namespace pome
