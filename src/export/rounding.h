// What rounding cost: stored values against those of the source.
#pragma once

#include <vector>

#include "graph/constant.h"

namespace pome {

struct RoundingError {
  double lost = 0, all = 0;  // sums of squares: of the differences, of the source
  void add(const RoundingError& other) { lost += other.lost, all += other.all; }
  double relative() const;  // sqrt(lost / all); 0 where nothing was rounded
};
struct RoundingScratch {
  std::vector<float> stored, source;
};
// Of the rows in `tile`, which was read from `data`: what stands for its source times `factor`.
// Nothing where the source is stored as it is.
Result<RoundingError> rounding_error(const ConstantData& data, float factor,
                                     const EncodedTile& tile, RoundingScratch* scratch);

}  // namespace pome
