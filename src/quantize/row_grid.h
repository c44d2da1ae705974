// The values that the columns of a row may take: block by block of columns, scale * level + offset,
// the levels ascending and the same for all blocks.
//
// Thread safety: immutable but for set().
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "encoding/block_pack.h"
#include "encoding/encoding.h"

namespace pome {

// What the codes of an encoding stand for before scale and offset.
struct Levels {
  std::vector<float> values;   // ascending
  std::vector<uint8_t> codes;  // of each
  bool integers = false;       // neighbours differ by one
  // Between neighbours, and infinity until there are 2^n - 1 of them.
  std::vector<float> middles;

  // low .. high; the code of a level is level + shift, modulo 256.
  static Levels of_integers(int low, int high, int shift);
  // Codes count upwards.
  static Levels of_table(std::span<const float> ascending);
  // Of the blocks of GGUF that can_pack(); codes as in BlockCodes.
  static Levels of_blocks(EncodingKind kind);

  // Of the level next to `wanted`.
  size_t nearest(float wanted) const {
    if (integers) {
      constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
      const float level = std::clamp(wanted, values.front(), values.back());
      return static_cast<size_t>((level + kRounder) - kRounder - values.front());
    }
    size_t index = 0;
    for (size_t step = (middles.size() + 1) / 2; step > 0; step /= 2)
      index += wanted > middles[index + step - 1] ? step : 0;
    return index;
  }
};
using LevelsPtr = std::shared_ptr<const Levels>;

// How a format stores the scales and offsets of a block of columns.
struct BlockRule {
  int64_t columns = 0, sub = 0;  // that share d and dmin; that share an integer of each
  int low = 1, high = 1;         // of the integers of scales; both 1: there are none
  int most_min = 0;              // of the integers of offsets -dmin min; 0: there are none
  bool offset = false;           // dmin is the offset
  bool power = false;            // d is an exponent

  bool integers() const { return low != high; }
  // One binary16 scale for `columns`.
  static BlockRule of_scales(int64_t columns) { return {columns, columns}; }
  // Of the blocks of GGUF that can_pack().
  static BlockRule of_blocks(EncodingKind kind);
};

class RowGrid {
 public:
  // One block of all columns with scale 1 and offset 0.
  explicit RowGrid(LevelsPtr levels);
  // `block`: columns that share a scale; 0: all. `offsets`: empty, or one for each scale.
  RowGrid(LevelsPtr levels, int64_t block, std::vector<float> scales, std::vector<float> offsets);
  // Of the blocks of one row.
  RowGrid(LevelsPtr levels, const BlockRule& rule, std::span<const BlockScales> blocks);

  // Scale and offset of a block of the row, which was stored as something else.
  void set(size_t block, const BlockRule& rule, const BlockScales& scales);

  size_t block_of(int64_t column) const {
    return block_ == 0 ? 0 : static_cast<size_t>(column / block_);
  }
  int64_t block_columns() const { return block_; }  // 0: all
  // The level of a block whose value is next to `target`, and that value.
  size_t nearest(size_t block, float target, float* value) const {
    const size_t level = levels_->nearest((target - offsets_[block]) * inverses_[block]);
    *value = scales_[block] * levels_->values[level] + offsets_[block];
    return level;
  }
  float value(size_t block, size_t level) const {
    return scales_[block] * levels_->values[level] + offsets_[block];
  }
  uint8_t code(size_t level) const { return levels_->codes[level]; }

 private:
  LevelsPtr levels_;
  int64_t block_ = 0;
  std::vector<float> scales_, inverses_, offsets_;
};

}  // namespace pome
