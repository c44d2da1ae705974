// From stored weights to tiles. Sources: encoding/blocks.h (fields), packed.h (what comes out).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoding/blocks.h"
#include "kernels/packed/tile.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome::kernels {

namespace {

template <typename Block>
Block block_at(const WeightView& w, int64_t row, int64_t index) {
  Block block;
  std::memcpy(&block, w.parts[0] + row * w.row_bytes + index * static_cast<int64_t>(sizeof block),
              sizeof block);
  return block;
}

void put_half(std::byte* at, int64_t index, uint16_t bits) {
  std::memcpy(at + 2 * index, &bits, 2);
}
void put_byte(std::byte* at, int64_t index, int value) {
  at[index] = static_cast<std::byte>(static_cast<uint8_t>(value));
}
constexpr uint16_t kSign = 0x8000;

// Sixteen bytes of nibbles: low ones first.
void low_then_high(const uint8_t* qs, uint8_t* codes) {
  for (int l = 0; l < 16; ++l) {
    codes[l] = qs[l] & 15;
    codes[l + 16] = qs[l] >> 4;
  }
}
// Adds bit e of `high` to code e.
void add_bits(const uint8_t (&high)[4], int shift, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, high, 4);
  for (int e = 0; e < 32; ++e)
    codes[e] = static_cast<uint8_t>(codes[e] | ((bits >> e & 1) << shift));
}

// What the codes and scales of one tile are written through, up to a super-block of columns at a
// time.
struct TileWriter {
  const PackedView& packed;
  const WeightView& w;
  std::byte* tile;
  uint8_t codes[8][kTileRows][kBlockColumns];  // by block of the super-block
  uint8_t index_bytes[kTileRows][256];         // palettes of 8-bit codes: index to byte, per row

  std::byte* record(int64_t block) const { return tile + packed.layout.record_at(block); }
  void put_planes(int64_t block);
  void read_block(int64_t row, int64_t r, int64_t block);
  void read_super(int64_t row, int64_t r, int64_t super);
  void read_stream(int64_t row, int64_t block, int width, uint8_t* out) const;
  void write_palette(int64_t row, int64_t rows);
};

// Bit planes hold codes below 16 side by side, so that whole quads of bytes can be shifted.
void TileWriter::put_planes(int64_t block) {
  uint32_t quad[kTileRows][8];
  std::memcpy(quad, codes[block % 8], sizeof quad);
  const int bits = packed.format.bits;
  std::byte* to = tile + packed.layout.codes_at(block);
  uint32_t plane[8][kTileRows];
  const auto store = [&](int count) {
    std::memcpy(to, plane, static_cast<size_t>(count) * 64);
    to += count * 64;
  };
  const auto two_bits = [&](int shift) {
    for (int r = 0; r < kTileRows; ++r) {
      for (int j = 0; j < 2; ++j) {
        uint32_t word = 0;
        for (int n = 0; n < 4; ++n) word |= (quad[r][4 * j + n] >> shift & 0x03030303u) << (2 * n);
        plane[j][r] = word;
      }
    }
    store(2);
  };
  const auto one_bit = [&](int shift) {
    for (int r = 0; r < kTileRows; ++r) {
      uint32_t word = 0;
      for (int t = 0; t < 8; ++t) word |= (quad[r][t] >> shift & 0x01010101u) << t;
      plane[0][r] = word;
    }
    store(1);
  };
  if (bits == 8) {
    for (int r = 0; r < kTileRows; ++r)
      for (int t = 0; t < 8; ++t) plane[t][r] = quad[r][t];
    store(8);
    return;
  }
  if (bits >= 4) {
    for (int r = 0; r < kTileRows; ++r)
      for (int j = 0; j < 4; ++j)
        plane[j][r] = (quad[r][j] & 0x0F0F0F0Fu) | (quad[r][j + 4] & 0x0F0F0F0Fu) << 4;
    store(4);
  } else {
    two_bits(0);
  }
  if (bits == 3) one_bit(2);
  if (bits == 5) one_bit(4);
  if (bits == 6) two_bits(4);
}

// Codes [32 block, ..) of the bit stream of a row.
void TileWriter::read_stream(int64_t row, int64_t block, int width, uint8_t* out) const {
  const int64_t k0 = block * kBlockColumns;
  const int64_t count = std::min(kBlockColumns, w.columns - k0);
  const int64_t first = row * w.columns + k0;
  if (width == 4) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(w.parts[0]) + first / 2;
    for (int64_t i = 0; i < count / 2; ++i) {
      out[2 * i] = bytes[i] & 15;
      out[2 * i + 1] = bytes[i] >> 4;
    }
  } else if (width == 8) {
    std::memcpy(out, w.parts[0] + first, static_cast<size_t>(count));
  } else {
    const auto bytes = static_cast<size_t>((w.rows * w.columns * width + 7) / 8);
    unpack_bits({w.parts[0], bytes}, width, first, {out, static_cast<size_t>(count)});
  }
}

// Codes of 4 or 5 bits: `high` has bit b of byte l for weight 32 b + l, or is null.
void nibbles_of_super(const uint8_t* qs, const uint8_t* high, int64_t r,
                      uint8_t (*codes)[kTileRows][kBlockColumns]) {
  for (int b = 0; b < 8; ++b) {
    uint8_t* out = codes[b][r];
    const uint8_t* from = qs + b / 2 * 32;
    if (b % 2 == 0) {
      for (int l = 0; l < 32; ++l) out[l] = from[l] & 15;
    } else {
      for (int l = 0; l < 32; ++l) out[l] = from[l] >> 4;
    }
    if (!high) continue;
    for (int l = 0; l < 32; ++l) out[l] = static_cast<uint8_t>(out[l] | ((high[l] >> b & 1) << 4));
  }
}
void put_scale_pairs(const uint8_t (&packed)[12], int64_t r, std::byte* to) {
  uint8_t scale[8], min[8];
  unpack_k_scales(packed, scale, min);
  for (int i = 0; i < 8; ++i) {
    put_byte(to + 64, i * 16 + r, scale[i]);
    put_byte(to + 192, i * 16 + r, min[i]);
  }
}

void TileWriter::read_super(int64_t row, int64_t r, int64_t super) {
  std::byte* to = record(super * 8);
  switch (w.encoding.kind) {
    case EncodingKind::kQ4_K: {
      const auto in = block_at<BlockQ4_K>(w, row, super);
      put_half(to, r, in.d);
      put_half(to + 32, r, in.dmin ^ kSign);
      put_scale_pairs(in.scales, r, to);
      return nibbles_of_super(in.qs, nullptr, r, codes);
    }
    case EncodingKind::kQ5_K: {
      const auto in = block_at<BlockQ5_K>(w, row, super);
      put_half(to, r, in.d);
      put_half(to + 32, r, in.dmin ^ kSign);
      put_scale_pairs(in.scales, r, to);
      return nibbles_of_super(in.qs, in.qh, r, codes);
    }
    case EncodingKind::kQ6_K: {
      const auto in = block_at<BlockQ6_K>(w, row, super);
      put_half(to, r, in.d);
      for (int i = 0; i < 16; ++i) put_byte(to + 32, i * 16 + r, in.scales[i]);
      for (int b = 0; b < 8; ++b) {
        const int h = b / 4, t = b % 4;
        const uint8_t* low = in.ql + 64 * h + 32 * (t % 2);
        const uint8_t* high = in.qh + 32 * h;
        for (int l = 0; l < 32; ++l)
          codes[b][r][l] =
              static_cast<uint8_t>((low[l] >> (t / 2 * 4) & 15) | (high[l] >> (2 * t) & 3) << 4);
      }
      return;
    }
    case EncodingKind::kQ3_K: {
      const auto in = block_at<BlockQ3_K>(w, row, super);
      int8_t scale[16];
      unpack_q3_k_scales(in.scales, scale);
      put_half(to, r, in.d);
      for (int i = 0; i < 16; ++i) put_byte(to + 32, i * 16 + r, scale[i]);
      for (int b = 0; b < 8; ++b) {
        const uint8_t* qs = in.qs + b / 4 * 32;
        for (int l = 0; l < 32; ++l)
          codes[b][r][l] =
              static_cast<uint8_t>((qs[l] >> (b % 4 * 2) & 3) | (in.hmask[l] >> b & 1) << 2);
      }
      return;
    }
    case EncodingKind::kQ2_K: {
      const auto in = block_at<BlockQ2_K>(w, row, super);
      put_half(to, r, in.d);
      put_half(to + 32, r, in.dmin ^ kSign);
      for (int i = 0; i < 16; ++i) put_byte(to + 64, i * 16 + r, in.scales[i]);
      for (int b = 0; b < 8; ++b) {
        const uint8_t* qs = in.qs + b / 4 * 32;
        for (int l = 0; l < 32; ++l) codes[b][r][l] = qs[l] >> (b % 4 * 2) & 3;
      }
      return;
    }
    default: {  // IQ4_XS
      const auto in = block_at<BlockIQ4_XS>(w, row, super);
      put_half(to, r, in.d);
      for (int b = 0; b < 8; ++b) {
        const int s = (in.scales_l[b / 2] >> (b % 2 * 4) & 15) | (in.scales_h >> (2 * b) & 3) << 4;
        put_byte(to + 32, b * 16 + r, s - 32);
        low_then_high(in.qs + 16 * b, codes[b][r]);
      }
      return;
    }
  }
}

void TileWriter::read_block(int64_t row, int64_t r, int64_t block) {
  uint8_t* out = codes[block % 8][r];
  std::byte* to = record(block);
  if (packed.format.scales == PackedScales::kHalf) to += block % 2 * 32;
  if (packed.format.scales == PackedScales::kExponent) to += block % 4 * 16;
  switch (w.encoding.kind) {
    case EncodingKind::kQ4_0: {
      const auto in = block_at<BlockQ4_0>(w, row, block);
      put_half(to, r, in.d);
      return low_then_high(in.qs, out);
    }
    case EncodingKind::kIQ4_NL: {
      const auto in = block_at<BlockIQ4_NL>(w, row, block);
      put_half(to, r, in.d);
      return low_then_high(in.qs, out);
    }
    case EncodingKind::kMXFP4: {
      const auto in = block_at<BlockMXFP4>(w, row, block);
      put_byte(to, r, in.e);
      return low_then_high(in.qs, out);
    }
    case EncodingKind::kQ4_1: {
      const auto in = block_at<BlockQ4_1>(w, row, block);
      put_half(to, r, in.d);
      put_half(to + 32, r, in.m);
      return low_then_high(in.qs, out);
    }
    case EncodingKind::kQ5_0: {
      const auto in = block_at<BlockQ5_0>(w, row, block);
      put_half(to, r, in.d);
      low_then_high(in.qs, out);
      return add_bits(in.qh, 4, out);
    }
    case EncodingKind::kQ5_1: {
      const auto in = block_at<BlockQ5_1>(w, row, block);
      put_half(to, r, in.d);
      put_half(to + 32, r, in.m);
      low_then_high(in.qs, out);
      return add_bits(in.qh, 4, out);
    }
    case EncodingKind::kQ8_0: {
      const auto in = block_at<BlockQ8_0>(w, row, block);
      put_half(to, r, in.d);
      for (int l = 0; l < 32; ++l) out[l] = static_cast<uint8_t>(in.qs[l]) ^ 0x80;
      return;
    }
    case EncodingKind::kInt: {
      const int64_t count = std::min(kBlockColumns, w.columns - block * kBlockColumns);
      read_stream(row, block, w.encoding.bits, out);
      const auto flip = static_cast<uint8_t>(packed.format.offset);
      for (int64_t l = 0; l < count; ++l) out[l] = out[l] ^ flip;
      const int64_t scales = w.columns / w.encoding.block;
      uint16_t scale;
      std::memcpy(&scale,
                  w.parts[1] + 2 * (row * scales + block * kBlockColumns / w.encoding.block), 2);
      if (packed.format.scales == PackedScales::kHalf) {
        put_half(to, r, scale);
      } else if (block == 0) {
        const float value = f16_to_f32(scale);
        std::memcpy(tile + 4 * r, &value, 4);
      }
      return;
    }
    case EncodingKind::kLut: {
      read_stream(row, block, w.encoding.bits, out);
      if (packed.format.table == PackedTable::kTile) return;
      for (int l = 0; l < 32; ++l) out[l] = index_bytes[r][out[l]];
      return;
    }
    default:
      return;  // super-blocks: read_super()
  }
}

// Tables in bytes: one scale per row (the same for all rows of a table) and value / scale + 128.
void TileWriter::write_palette(int64_t row, int64_t rows) {
  const auto entries = static_cast<int64_t>(1) << w.encoding.bits;
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* table = w.parts[1] + 2 * entries * ((row + r) / w.encoding.group);
    float values[256], largest = 0;
    for (int64_t i = 0; i < entries; ++i) {
      uint16_t bits;
      std::memcpy(&bits, table + 2 * i, 2);
      values[i] = f16_to_f32(bits);
      largest = std::max(largest, std::fabs(values[i]));
    }
    const float scale = largest / 127.0f;
    std::memcpy(tile + 4 * r, &scale, 4);
    for (int64_t i = 0; i < entries; ++i) {
      const float code = scale > 0 ? std::nearbyint(values[i] / scale) : 0.0f;
      index_bytes[r][i] = static_cast<uint8_t>(static_cast<int>(code) + 128);
    }
  }
  if (packed.format.table != PackedTable::kTile) return;
  std::byte* table = tile + 64;
  for (int64_t i = 0; i < 64; ++i) put_byte(table, i, i < entries ? index_bytes[0][i] : 128);
}

}  // namespace

void pack_tile(const PackedView& to, const WeightView& w, int64_t row, std::byte* tile) {
  const int64_t rows = std::min(kTileRows, w.rows - row);
  for (int64_t block = 0; block < to.layout.blocks; block += to.layout.span_blocks)
    std::memset(tile + to.layout.record_at(block), 0, static_cast<size_t>(to.layout.record_bytes));
  std::memset(tile, 0, static_cast<size_t>(to.layout.head_bytes));
  TileWriter writer{to, w, tile, {}, {}};
  if (w.encoding.kind == EncodingKind::kLut) writer.write_palette(row, rows);
  const int filler = to.format.table == PackedTable::kNone ? to.format.offset : 0;
  std::memset(writer.codes, filler, sizeof writer.codes);
  for (int64_t first = 0; first < to.layout.blocks; first += 8) {
    const int64_t end = std::min(first + 8, to.layout.blocks);
    if (end * kBlockColumns > w.columns)
      std::memset(writer.codes[(end - 1) % 8], filler, sizeof writer.codes[0]);
    for (int64_t r = 0; r < rows; ++r) {
      if (to.format.has_super()) {
        writer.read_super(row + r, r, first / 8);
      } else {
        for (int64_t block = first; block < end; ++block) writer.read_block(row + r, r, block);
      }
    }
    for (int64_t block = first; block < end; ++block) writer.put_planes(block);
  }
}

}  // namespace pome::kernels
