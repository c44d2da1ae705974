// Quantised weights laid out for products with int8 activations.
//
// A *tile* holds 16 neighbouring rows and all columns of a matrix. Every element is
//
//   w[r, k] = scale[r, block of k] * (code[r, k] - offset) + bias[r, block of k]
//
// with an unsigned code of `bits` bits (or, for tables, the index of one in a table of unsigned
// bytes). Codes stand in blocks of 32 columns. A *quad* is four neighbouring columns; the bytes of
// quad t of a block are  byte[4 r + i] = code[r, 4 t + i],  64 of them: one vector register whose
// 32-bit lanes are the 16 rows. Quads are packed into planes:
//
//   4 bits   plane j < 4: quad j in the low nibbles, quad j + 4 in the high nibbles          256
//   bytes 2 bits   plane j < 2: quads 4 j + n in bits 2 n, 2 n + 1, n < 4 128 1 bit    one plane:
//   quad t in bit t                                                       64 8 bits   quad after
//   quad                                                                 512 3, 5, 6  2 + 1, 4 + 1,
//   4 + 2: the planes of the low bits, then those of the high bits
//
// A tile in memory:  [f32 row scale [16]] [table [64]]   head, each where the format has it
//                    scale plane, one record per block or super-block (see PackedScales)
//                    code plane, from a multiple of 64 bytes on
//
// Rows and columns beyond the matrix have code = offset, scale 0 and bias 0.
// What a tile holds is the stored weight, but for f16 tables, whose entries are rounded to bytes:
// |error| <= largest entry / 254. Palettes of several tables in 16 rows, and those of more than 16
// entries, become 8-bit codes with one scale per row, with the same bound.
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

// The record of the scale plane. `h[16]` are binary16, `b[16]` bytes, one per row.
enum class PackedScales : uint8_t {
  kRow,         // nothing: the row scale of the head alone
  kHalf,        // per block   h scale                                                 32 bytes
  kHalfBias,    // per block   h scale, h bias                                         64
  kExponent,    // per block   b e: scale 2^(e - 128)                                  16
  kSuper,       // per 256     h d, then per block b s: scale d * (signed) s           32 + 128
  kSuper16,     // per 256     h d, then per 16 columns b s: the same                  32 + 256
  kSuperBias,   // per 256     h d, h n, per block b s, per block b m:                 64 + 256
                //             scale d * s, bias n * m
  kSuperBias16  // per 256     h d, h n, then per 16 columns b: s low, m high nibble   64 + 256
};
enum class PackedTable : uint8_t { kNone, kIq4, kFp4, kTile };

struct PackedFormat {
  int bits = 4;
  int offset = 0;
  PackedScales scales = PackedScales::kHalf;
  PackedTable table = PackedTable::kNone;
  friend bool operator==(const PackedFormat&, const PackedFormat&) = default;

  bool per_16() const {
    return scales == PackedScales::kSuper16 || scales == PackedScales::kSuperBias16;
  }
  bool has_super() const { return scales >= PackedScales::kSuper; }
  bool has_bias() const {
    return scales == PackedScales::kHalfBias || scales == PackedScales::kSuperBias ||
           scales == PackedScales::kSuperBias16;
  }
};
// Null for encodings and shapes that stay as they are stored: floats, other group sizes, grids.
std::optional<PackedFormat> packed_format(const Encoding& encoding, int64_t columns);

int64_t block_bytes(const PackedFormat& format);  // of codes, 16 rows x 32 columns

struct PackedLayout {
  int64_t rows = 0, columns = 0;  // of the matrix
  int64_t tiles = 0, blocks = 0;  // blocks of a row of tiles, whole
  int64_t head_bytes = 0, scale_bytes = 0, scale_record = 0, tile_bytes = 0;
  int64_t codes_at() const { return head_bytes + scale_bytes; }
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
// Floats of one row of a tile: the definition, for tests and for tables of rows.
void unpack_row(const PackedView& packed, int64_t row, float* out);

}  // namespace pome::kernels
