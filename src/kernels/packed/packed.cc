#include "kernels/packed/packed.h"

#include <algorithm>
#include <cstring>

#include "encoding/blocks.h"
#include "kernels/packed/tile.h"
#include "tensor/half.h"

namespace pome::kernels {

namespace {

std::optional<PackedFormat> int_format(const Encoding& encoding, int64_t columns) {
  const int offset = encoding.bits == 4 ? 8 : 128;
  if (encoding.block == columns) return PackedFormat{encoding.bits, offset, PackedScales::kRow};
  if (encoding.block % kBlockColumns != 0) return std::nullopt;
  return PackedFormat{encoding.bits, offset, PackedScales::kHalf};
}

std::optional<PackedFormat> lut_format(const Encoding& encoding, int64_t columns) {
  const bool one_table = encoding.group % kTileRows == 0;
  if (encoding.bits <= 4 && one_table) {
    const int bits = std::max(encoding.bits, 2);
    return PackedFormat{bits, 128, PackedScales::kRow, PackedTable::kTile};
  }
  return PackedFormat{columns < kWideColumns ? 16 : 8, 128, PackedScales::kHalf};
}

float half_at(const std::byte* at, int64_t index) {
  uint16_t bits;
  std::memcpy(&bits, at + 2 * index, 2);
  return f16_to_f32(bits);
}
int byte_at(const std::byte* at, int64_t index) { return std::to_integer<int>(at[index]); }

struct Affine {
  float scale = 0, bias = 0;
};

// Scale and bias of columns [16 half, 16 half + 16) of a row of the tile.
Affine affine_at(const PackedView& packed, const std::byte* tile, int64_t row, int64_t half) {
  const PackedFormat& f = packed.format;
  const int64_t block = half / 2;
  const std::byte* record = tile + packed.layout.record_at(block);
  switch (f.scales) {
    case PackedScales::kRow: {
      float scale;
      std::memcpy(&scale, tile + 4 * row, 4);
      return {scale, 0};
    }
    case PackedScales::kHalf:
      return {half_at(record + block % 2 * 32, row), 0};
    case PackedScales::kHalfBias:
      return {half_at(record, row), half_at(record + 32, row)};
    case PackedScales::kExponent:
      return {e8m0_half(static_cast<uint8_t>(byte_at(record, block % 4 * 16 + row))), 0};
    case PackedScales::kSuper:
      return {half_at(record, row) * static_cast<float>(static_cast<int8_t>(
                                         byte_at(record + 32, block % 8 * 16 + row))),
              0};
    case PackedScales::kSuper16:
      return {half_at(record, row) * static_cast<float>(static_cast<int8_t>(
                                         byte_at(record + 32, half % 16 * 16 + row))),
              0};
    case PackedScales::kSuperBias: {
      const int64_t at = block % 8 * 16 + row;
      return {half_at(record, row) * static_cast<float>(byte_at(record + 64, at)),
              half_at(record + 32, row) * static_cast<float>(byte_at(record + 192, at))};
    }
    case PackedScales::kSuperBias16: {
      const int both = byte_at(record + 64, half % 16 * 16 + row);
      return {half_at(record, row) * static_cast<float>(both & 15),
              half_at(record + 32, row) * static_cast<float>(both >> 4)};
    }
  }
  return {};
}

}  // namespace

std::optional<PackedFormat> packed_format(const Encoding& encoding, int64_t columns) {
  if (columns < 1 || columns % 16 != 0) return std::nullopt;
  using S = PackedScales;
  switch (encoding.kind) {
    case EncodingKind::kQ4_0:
      return PackedFormat{4, 8, S::kHalf};
    case EncodingKind::kQ4_1:
      return PackedFormat{4, 0, S::kHalfBias};
    case EncodingKind::kQ5_0:
      return PackedFormat{5, 16, S::kHalf};
    case EncodingKind::kQ5_1:
      return PackedFormat{5, 0, S::kHalfBias};
    case EncodingKind::kQ8_0:
      return PackedFormat{8, 128, S::kHalf};
    case EncodingKind::kQ2_K:
      return PackedFormat{2, 0, S::kSuperBias16};
    case EncodingKind::kQ3_K:
      return PackedFormat{3, 4, S::kSuper16};
    case EncodingKind::kQ4_K:
      return PackedFormat{4, 0, S::kSuperBias};
    case EncodingKind::kQ5_K:
      return PackedFormat{5, 0, S::kSuperBias};
    case EncodingKind::kQ6_K:
      return PackedFormat{6, 32, S::kSuper16};
    case EncodingKind::kIQ4_NL:
      return PackedFormat{4, 128, S::kHalf, PackedTable::kIq4};
    case EncodingKind::kIQ4_XS:
      return PackedFormat{4, 128, S::kSuper, PackedTable::kIq4};
    case EncodingKind::kMXFP4:
      return PackedFormat{4, 12, S::kExponent, PackedTable::kFp4};
    case EncodingKind::kInt:
      return int_format(encoding, columns);
    case EncodingKind::kLut:
      return lut_format(encoding, columns);
    default:
      return std::nullopt;
  }
}

PackedLayout packed_layout(const PackedFormat& format, int64_t rows, int64_t columns) {
  PackedLayout out;
  out.rows = rows;
  out.columns = columns;
  out.tiles = (rows + kTileRows - 1) / kTileRows;
  out.blocks = (columns + kBlockColumns - 1) / kBlockColumns;
  out.head_bytes = (format.scales == PackedScales::kRow ? 64 : 0) +
                   (format.table == PackedTable::kTile ? 64 : 0);
  out.block_bytes = kTileRows * kBlockColumns * format.bits / 8;
  out.record_bytes = record_bytes(format.scales);
  out.span_blocks = span_blocks(format.scales);
  const int64_t spans = (out.blocks + out.span_blocks - 1) / out.span_blocks;
  out.tile_bytes = out.head_bytes + spans * out.record_bytes + out.blocks * out.block_bytes;
  return out;
}

void table_of(const PackedView& packed, const std::byte* tile, int level, uint8_t (&table)[16]) {
  for (int i = 0; i < 16; ++i) {
    switch (packed.format.table) {
      case PackedTable::kNone:
        table[i] = static_cast<uint8_t>(i);
        break;
      case PackedTable::kIq4:
        table[i] = static_cast<uint8_t>(kIq4Levels[i] + 128);
        break;
      case PackedTable::kFp4:
        table[i] = static_cast<uint8_t>(kFp4Doubled[i] + 12);
        break;
      case PackedTable::kTile:
        table[i] = std::to_integer<uint8_t>(tile[packed.layout.head_bytes - 64 + 16 * level + i]);
        break;
    }
  }
}

void row_codes(int bits, const std::byte* block, int64_t lane, uint8_t (&codes)[kBlockColumns]) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(block) + 4 * lane;
  const uint8_t* high = bytes + (bits == 3 ? 128 : 256);
  for (int t = 0; t < 8; ++t) {
    for (int i = 0; i < 4; ++i) {
      int code = 0;
      if (bits >= 8) {
        code = bytes[t * 64 + i];
      } else if (bits >= 4) {
        code = bytes[t % 4 * 64 + i] >> (t / 4 * 4) & 15;
      } else {
        code = bytes[t / 4 * 64 + i] >> (t % 4 * 2) & 3;
      }
      if (bits == 3) code |= (high[i] >> t & 1) << 2;
      if (bits == 5) code |= (high[i] >> t & 1) << 4;
      if (bits == 6) code |= (high[t / 4 * 64 + i] >> (t % 4 * 2) & 3) << 4;
      codes[4 * t + i] = static_cast<uint8_t>(code);
    }
  }
}

void unpack_row(const PackedView& packed, int64_t row, float* out) {
  const std::byte* tile = packed.tile(row / kTileRows);
  const PackedFormat& f = packed.format;
  const int64_t lane = row % kTileRows;
  // In 256ths, whether or not there is a second level.
  const auto value_of = [&f](int first, int second) {
    const int value = 256 * (first - f.offset) + (f.levels() == 2 ? second - 128 : 0);
    return static_cast<float>(value) / 256.0f;
  };
  float values[16];
  uint8_t table[2][16];
  for (int level = 0; level < 2; ++level) table_of(packed, tile, level, table[level]);
  for (int i = 0; i < 16; ++i) values[i] = value_of(table[0][i], table[1][i]);
  uint8_t codes[2][kBlockColumns] = {};
  for (int64_t half = 0; half < packed.layout.columns / 16; ++half) {
    if (half % 2 == 0) {
      const std::byte* const block = tile + packed.layout.codes_at(half / 2);
      row_codes(f.bits, block, lane, codes[0]);
      if (f.bits == 16) row_codes(f.bits, block + kLevelBytes, lane, codes[1]);
    }
    const Affine a = affine_at(packed, tile, lane, half);
    for (int64_t k = 0; k < 16; ++k) {
      const int64_t at = half % 2 * 16 + k;
      const float value = f.table == PackedTable::kNone ? value_of(codes[0][at], codes[1][at])
                                                        : values[codes[0][at] & 15];
      out[half * 16 + k] = a.scale * value + a.bias;
    }
  }
}

}  // namespace pome::kernels
