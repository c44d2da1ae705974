// Scales and offsets of blocks, moved so that the error of the output falls while levels stay.
//
// Along a direction x of the errors of a row (the levels of a sub-block for its scale, ones for its
// offset) e H e' is a parabola: its slope is (e H) x', its curvature x H x'. Sub-blocks are taken
// one after the other, then d and dmin of their block; what the format can store next to the lowest
// point is taken where it is lower than where the row stands. Nothing is made larger.
//
// Rows are independent of each other. Thread safety: one object per thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/quadratic_form.h"
#include "quantize/row_grid.h"

namespace pome {

class ScaleRefiner {
 public:
  ScaleRefiner(const QuadraticForm& form, const BlockRule& rule, LevelsPtr levels)
      : form_(form), rule_(rule), levels_(std::move(levels)) {}

  // Columns [first, first + count), whole blocks, of all rows: `levels` and `blocks` of whole rows,
  // `gradients` e H of these columns, [rows, count], which are kept true. Gives by how much
  // e H e' of all rows fell.
  double refine(int64_t first, int64_t count, std::span<const uint8_t> levels,
                std::span<BlockScales> blocks, std::span<RowGrid> grids,
                std::span<float> gradients);

 private:
  struct Rows;
  void step_integers(int64_t at, int64_t sub, Rows* rows);
  void step_halves(int64_t at, Rows* rows);

  const QuadraticForm& form_;
  const BlockRule rule_;
  const LevelsPtr levels_;
  // Levels of a sub-block, and what moving scale or offset by 1 does to e H: of a sub-block, and of
  // d and dmin. [rows, columns that are refined]
  std::vector<float> values_, by_scale_, by_offset_, by_d_, by_dmin_;
};

}  // namespace pome
