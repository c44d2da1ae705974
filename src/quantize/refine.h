// What is still to be had when rows are rounded. Levels, one column at a time, against what all
// other columns leave (coordinate descent); tables, by a step down the gradient of their entries as
// long as the form itself says. No step makes e H e' larger.
//
// Columns come in blocks, whose gradients e H are one matrix product of all rows. Rows, and groups
// of rows that share a table, are independent of each other. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "quantize/quadratic_form.h"
#include "quantize/row_grid.h"

namespace pome {

// One round over all columns. Gives by how much e H e' of all rows fell.
double refine_levels(const QuadraticForm& form, std::span<const float> values,
                     std::span<const RowGrid> grids, std::span<uint8_t> levels);
// The same, and in between scales and offsets of the blocks that the grids were made of
// (refine_scales.h), which are kept true. Of blocks of more than 256 columns scales stay.
double refine_blocks(const QuadraticForm& form, const BlockRule& rule, const LevelsPtr& kinds,
                     std::span<const float> values, std::span<BlockScales> blocks,
                     std::span<RowGrid> grids, std::span<uint8_t> levels);
// Moves the entries of the tables of groups of `group` rows each, whose levels stay; `weights`: how
// much columns count, about; `row_weights`: how much rows do. Tables stay binary16 and strictly
// ascending. Gives by how much e H e' fell, rows weighted.
double refine_tables(const QuadraticForm& form, std::span<const float> weights,
                     std::span<const float> row_weights, std::span<const float> values,
                     size_t group, std::span<const uint8_t> levels, std::span<uint16_t> tables);

}  // namespace pome
