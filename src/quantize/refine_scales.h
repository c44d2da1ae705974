// Scales and offsets of blocks, moved so that the error of the output falls while levels stay.
//
// Along a direction x of the errors of a row (the levels of a sub-block for its scale, ones for its
// offset) e H e' is a parabola: its slope is (e H) x', its curvature x H x'. d and dmin of
// super-blocks are taken first, then one sub-block after the other; what the format can store next
// to the lowest point is taken where that is lower than where the row stands. Nothing is made
// larger.
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
  void step_super_block(int64_t at, Rows* rows);
  void step_block(int64_t at, Rows* rows);
  void feed(Rows* rows);
  bool has_offsets() const { return rule_.offset || rule_.most_min > 0; }

  const QuadraticForm& form_;
  const BlockRule rule_;
  const LevelsPtr levels_;
  // How much values have grown, [rows, columns that are refined]: what gradients have yet to hear.
  std::vector<float> moved_, asked_;
  // What levels stand for, directions, and what these are times H.
  std::vector<float> values_, scaled_, ones_, by_scale_, by_offset_;
};

}  // namespace pome
