// The values that the columns of a row may take: block by block of columns, scale * level + offset,
// the levels ascending and the same for all blocks.
//
// Thread safety: immutable.
#pragma once

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
  std::vector<float> middles;  // between neighbours
  std::vector<uint8_t> codes;  // of each
  bool integers = false;       // neighbours differ by one
  float low = 0, high = 0;     // the first and the last

  // low .. high; the code of a level is level + shift, modulo 256.
  static Levels of_integers(int low, int high, int shift);
  // Codes count upwards.
  static Levels of_table(std::span<const float> ascending);
  // Of the blocks of GGUF that can_pack(); codes as in BlockCodes.
  static Levels of_blocks(EncodingKind kind);
};
using LevelsPtr = std::shared_ptr<const Levels>;

class RowGrid {
 public:
  // One block of all columns with scale 1 and offset 0.
  explicit RowGrid(LevelsPtr levels);
  // `offsets`: empty, or one for each scale.
  RowGrid(LevelsPtr levels, int64_t block, std::vector<float> scales, std::vector<float> offsets);
  // Of the blocks of one row.
  RowGrid(LevelsPtr levels, EncodingKind kind, std::span<const BlockCodes> blocks);

  // The code of the value of a column next to `target`, and that value.
  uint8_t nearest(int64_t column, float target, float* value) const;

 private:
  LevelsPtr levels_;
  int64_t block_ = 0;  // columns that share a scale; 0: all
  std::vector<float> scales_, inverses_, offsets_;
};

}  // namespace pome
