// Tiles of constants that are made when they are read, as f32.
#pragma once

#include "graph/constant.h"

namespace pome {

// Hands out `rows * columns` floats as the single part of an f32 tile.
inline float* f32_part(EncodedTile* tile, int64_t row, int64_t rows, int64_t columns) {
  tile->row = row;
  tile->rows = rows;
  tile->storage.resize(1);
  tile->storage[0].resize(static_cast<size_t>(rows * columns) * sizeof(float));
  tile->parts.assign(1, tile->storage[0]);
  return reinterpret_cast<float*>(tile->storage[0].data());
}

}  // namespace pome
