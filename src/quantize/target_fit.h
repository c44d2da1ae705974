// Parts of grids, fitted for the targets that error feedback has made of the weights when it
// comes to their columns (Feedback::Fitter). The squared error counts D of the columns.
//
// Codes of 4 and 5 bits with one binary16 scale: the best one. Super-blocks of GGUF: d and dmin
// stay, the integers of a sub-block move to a neighbour as long as the error falls.
//
// Thread safety: one object per thread.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "quantize/int_scale.h"
#include "quantize/row_grid.h"

namespace pome {

class TargetFit {
 public:
  // `blocks` and `grids`: of rows, changed together.
  TargetFit(const BlockRule& rule, const Levels& levels, std::span<BlockScales> blocks,
            std::span<RowGrid> grids);

  // Whether there is anything to fit.
  static bool can_fit(const BlockRule& rule, const Levels& levels);
  // Sub-block `sub` of a row; targets and weights of its columns, in any order.
  void fit(size_t row, size_t sub, std::span<const float> targets, std::span<const float> weights);

 private:
  void move_integers(BlockScales* block, size_t sub, std::span<const float> targets,
                     std::span<const float> weights) const;
  double error(float scale, float offset, std::span<const float> targets,
               std::span<const float> weights) const;

  const BlockRule& rule_;
  const Levels& levels_;
  const std::span<BlockScales> blocks_;
  const std::span<RowGrid> grids_;
  ScaleScratch scratch_;
};

}  // namespace pome
