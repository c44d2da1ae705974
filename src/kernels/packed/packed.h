// Quantised weights laid out for products with int8 activations.
//
// A *tile* holds 16 neighbouring rows and all columns of a matrix. Every element is
//
//   w[r, k] = scale[r, block of k] * (code[r, k] - offset) + bias[r, block of k]
//
// with an unsigned code of `bits` bits (or, for tables, the index of one in a table of unsigned
// bytes). Codes of 16 bits, and the table of a tile, have two levels of bytes: code = first +
// (second - 128) / 256. Codes stand in blocks of 32 columns. A *quad* is four neighbouring columns;
// the bytes of quad t of a block are byte[4 r + i] = code[r, 4 t + i], 64 of them: one vector
// register whose 32-bit lanes are the 16 rows. Quads are packed into planes:
//
//   4 bits        plane j < 4: quad j in the low nibbles, quad j + 4 in the high ones   256 bytes
//   2 bits        plane j < 2: quads 4 j + n in bits 2 n, 2 n + 1, n < 4                128
//   1 bit         one plane: quad t in bit t                                             64
//   8 bits        quad after quad                                                       512
//   3, 5, 6 bits  2 + 1, 4 + 1, 4 + 2: the planes of the low bits, then those of the high ones
//   16 bits       the planes of the first level, then those of the second
//
// A tile in memory is one stream:
//
//   head    [f32 row scale [16]] [table [64]], each where the format has it
//   spans   [scale record] [codes of its blocks]
//
// A span is as many blocks as make its record a multiple of 64 bytes (see PackedScales); the last
// one of a tile may hold fewer blocks.
//
// Rows and columns beyond the matrix have code = offset, scale 0 and bias 0.
// The table of a tile is 64 bytes: 16 of the first level, 16 of the second.
//
// What a tile holds is the stored weight, but for palettes of f16 entries. Those of a tile's table
// are rounded in narrow matrices (kWideColumns) to 16 bits, |error| <= largest entry / 65278; in
// wide ones to bytes, with a scale that suits the entries, |error| <= / 128. Palettes of several
// tables in 16 rows, and those of more than 16 entries, become codes with a scale per 32 columns:
// in narrow matrices of 16 bits, |error| <= largest weight there / 65000, in wide ones of 8 bits, /
// 254.
//
// Thread safety: pure functions over memory of the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "encoding/encoding.h"
#include "kernels/weights/weights.h"

namespace pome::kernels {

inline constexpr int64_t kTileRows = 16, kBlockColumns = 32, kSuperColumns = 256;

// The record of a span. `h[16]` are binary16, `b[16]` bytes, one per row.
enum class PackedScales : uint8_t {
  kRow,         // no record: the row scale of the head alone; spans of one block
  kHalf,        // 2 blocks   h scale each                                             64 bytes
  kHalfBias,    // 1 block    h scale, h bias                                          64
  kExponent,    // 4 blocks   b e each: scale 2^(e - 128)                              64
  kSuper,       // 8 blocks   h d, then per block b s: scale d * (signed) s           192, 160 used
  kSuper16,     // 8 blocks   h d, then per 16 columns b s: the same                  320, 288 used
  kSuperBias,   // 8 blocks   h d, h n, per block b s, per block b m:                 320
                //            scale d * s, bias n * m
  kSuperBias16  // 8 blocks   h d, h n, per 16 columns b: s low, m high nibble        320
};
constexpr int span_blocks(PackedScales scales) {
  switch (scales) {
    case PackedScales::kRow:
    case PackedScales::kHalfBias:
      return 1;
    case PackedScales::kHalf:
      return 2;
    case PackedScales::kExponent:
      return 4;
    default:
      return 8;
  }
}
constexpr int record_bytes(PackedScales scales) {
  switch (scales) {
    case PackedScales::kRow:
      return 0;
    case PackedScales::kHalf:
    case PackedScales::kHalfBias:
    case PackedScales::kExponent:
      return 64;
    case PackedScales::kSuper:
      return 192;
    default:
      return 320;
  }
}
enum class PackedTable : uint8_t { kNone, kIq4, kFp4, kTile };

struct PackedFormat {
  int bits = 4;
  int offset = 0;
  PackedScales scales = PackedScales::kHalf;
  PackedTable table = PackedTable::kNone;
  friend bool operator==(const PackedFormat&, const PackedFormat&) = default;

  // Of codes: two where a byte is not enough.
  constexpr int levels() const { return bits == 16 || table == PackedTable::kTile ? 2 : 1; }
  constexpr bool per_16() const {
    return scales == PackedScales::kSuper16 || scales == PackedScales::kSuperBias16;
  }
  constexpr bool has_super() const { return scales >= PackedScales::kSuper; }
  constexpr bool has_bias() const {
    return scales == PackedScales::kHalfBias || scales == PackedScales::kSuperBias ||
           scales == PackedScales::kSuperBias16;
  }
};
// Null for encodings and shapes that stay as they are stored: floats, other group sizes, grids.
std::optional<PackedFormat> packed_format(const Encoding& encoding, int64_t columns);

struct PackedLayout {
  int64_t rows = 0, columns = 0;  // of the matrix
  int64_t tiles = 0, blocks = 0;  // blocks of a row of tiles, whole
  int64_t head_bytes = 0, block_bytes = 0, record_bytes = 0, span_blocks = 1, tile_bytes = 0;

  // Where the record of a block's span and its codes begin in a tile.
  int64_t record_at(int64_t block) const {
    return head_bytes + block / span_blocks * (record_bytes + span_blocks * block_bytes);
  }
  int64_t codes_at(int64_t block) const {
    return record_at(block) + record_bytes + block % span_blocks * block_bytes;
  }
};
PackedLayout packed_layout(const PackedFormat& format, int64_t rows, int64_t columns);

// A packed matrix. `data` is aligned to 64 bytes and holds tiles * tile_bytes.
struct PackedView {
  PackedFormat format;
  PackedLayout layout;
  const std::byte* data = nullptr;

  const std::byte* tile(int64_t index) const { return data + index * layout.tile_bytes; }
};

// Fills one tile from rows [row, row + 16) of `w` (fewer at the end). `w` may begin at a row other
// than that of the matrix, but palettes must keep their groups.
void pack_tile(const PackedView& to, const WeightView& w, int64_t row, std::byte* tile);
// Floats of one row: the definition, for tests, and for tables whose rows are looked up.
void unpack_row(const PackedView& packed, int64_t row, float* out);

}  // namespace pome::kernels
