#include "export/rounding.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace pome {

double RoundingError::relative() const { return all > 0 ? std::sqrt(lost / all) : 0; }

Result<RoundingError> rounding_error(const ConstantData& data, float factor,
                                     const EncodedTile& tile, RoundingScratch* scratch) {
  RoundingError out;
  const ConstantData& source = data.unrounded();
  if (&source == &data || source.encoding() == data.encoding()) return out;
  const size_t count = static_cast<size_t>(tile.rows * data.columns());
  scratch->stored.resize(count);
  scratch->source.resize(count);
  POME_RETURN_IF_ERROR(
      decode_rows(data.encoding(), tile.rows, data.columns(), tile.parts, scratch->stored.data()));
  POME_RETURN_IF_ERROR(source.read_f32(tile.row, tile.rows, scratch->source.data()));
  for (size_t begin = 0; begin < count; begin += 4096) {
    // Short sums in f32 lanes, long ones in f64.
    std::array<float, 16> lost{}, all{};
    const size_t end = std::min(count, begin + 4096);
    for (size_t i = begin; i < end; ++i) {
      const float w = scratch->source[i] * factor, e = w - scratch->stored[i];
      lost[i % 16] += e * e;
      all[i % 16] += w * w;
    }
    for (size_t lane = 0; lane < 16; ++lane) {
      out.lost += static_cast<double>(lost[lane]);
      out.all += static_cast<double>(all[lane]);
    }
  }
  return out;
}

}  // namespace pome
