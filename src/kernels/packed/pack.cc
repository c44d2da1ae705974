// From stored weights to tiles. Sources: encoding/blocks.h (fields), packed.h (what comes out).
//
// Loading a model is mostly this, so codes are moved eight at a time, as the bytes of a word.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>

#include "encoding/blocks.h"
#include "kernels/packed/tile.h"
#include "tensor/half.h"

namespace pome::kernels {

namespace {

// 32 codes of a row, a byte each.
struct Codes {
  uint64_t q[4];
};

constexpr uint64_t each(uint64_t byte) { return 0x0101010101010101u * byte; }
uint64_t word_at(const void* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// Writes the codes of one row where its lane of a block's planes begins.
template <int kBits>
void put_codes(const Codes& codes, std::byte* to) {
  const auto lane = [&](int plane, uint32_t word) { std::memcpy(to + 64 * plane, &word, 4); };
  const auto two_lanes = [&](int plane, uint64_t word) {
    lane(plane, static_cast<uint32_t>(word));
    lane(plane + 1, static_cast<uint32_t>(word >> 32));
  };
  // Bits [shift, shift + 2) of 16 codes side by side.
  const auto two_bits = [&](int plane, int half, int shift) {
    const uint64_t a = codes.q[2 * half] >> shift & each(3),
                   b = codes.q[2 * half + 1] >> shift & each(3);
    const uint64_t both = a | b << 4;
    lane(plane, static_cast<uint32_t>(both | both >> 30));
  };
  const auto one_bit = [&](int plane, int shift) {
    uint64_t all = 0;
    for (int i = 0; i < 4; ++i) all |= (codes.q[i] >> shift & each(1)) << (2 * i);
    lane(plane, static_cast<uint32_t>(all | all >> 31));
  };
  if constexpr (kBits >= 8) {
    for (int i = 0; i < 4; ++i) two_lanes(2 * i, codes.q[i]);
  } else if constexpr (kBits >= 4) {
    for (int i = 0; i < 2; ++i)
      two_lanes(2 * i, (codes.q[i] & each(15)) | (codes.q[i + 2] & each(15)) << 4);
  } else {
    for (int i = 0; i < 2; ++i) two_bits(i, i, 0);
  }
  if constexpr (kBits == 3) one_bit(2, 2);
  if constexpr (kBits == 5) one_bit(4, 4);
  if constexpr (kBits == 6) {
    for (int i = 0; i < 2; ++i) two_bits(4 + i, i, 4);
  }
}

void put_half(std::byte* at, int64_t index, uint16_t bits) {
  std::memcpy(at + 2 * index, &bits, 2);
}
void put_byte(std::byte* at, int64_t index, int value) {
  at[index] = static_cast<std::byte>(static_cast<uint8_t>(value));
}
constexpr uint16_t kSign = 0x8000;

// A block where it is stored, which need not be aligned. Copying it first would cost more than
// reading it: words that cross the pieces of the copy wait for both.
template <typename Block>
struct Stored {
  const std::byte* at;
  const uint8_t* bytes(size_t offset) const {
    return reinterpret_cast<const uint8_t*>(at) + offset;
  }
  uint16_t half(size_t offset) const {
    uint16_t bits;
    std::memcpy(&bits, at + offset, 2);
    return bits;
  }
};

// Codes of a stored block. Sixteen bytes of nibbles: low ones first.
Codes nibbles(const uint8_t* qs) {
  const uint64_t a = word_at(qs), b = word_at(qs + 8);
  return {{a & each(15), b & each(15), a >> 4 & each(15), b >> 4 & each(15)}};
}
// Bit e of the four bytes of `high` becomes bit 4 of code e.
void add_fifth_bits(const uint8_t* high, Codes* codes) {
  for (int i = 0; i < 4; ++i) {
    // Byte n keeps bit n alone; what it is then carries into the top bit.
    const uint64_t alone = each(high[i]) & 0x8040201008040201u;
    codes->q[i] |= (alone + each(0x7F)) >> 3 & each(16);
  }
}
// Codes of 4 or 5 bits: `high` has bit b of byte l for weight 32 b + l, or is null.
void nibbles_of_super(const uint8_t* qs, const uint8_t* high, Codes* codes) {
  for (int b = 0; b < 8; ++b) {
    for (int i = 0; i < 4; ++i) {
      const uint64_t low = word_at(qs + b / 2 * 32 + 8 * i) >> (b % 2 * 4) & each(15);
      const uint64_t top = high ? (word_at(high + 8 * i) >> b & each(1)) << 4 : 0;
      codes[b].q[i] = low | top;
    }
  }
}
// The bits [2 j, 2 j + 2) of qs[32 h + l] are weight 128 h + 32 j + l.
uint64_t two_bit_order(const uint8_t* qs, int b, int i) {
  return word_at(qs + b / 4 * 32 + 8 * i) >> (b % 4 * 2) & each(3);
}
void put_scale_pairs(const uint8_t* stored, int64_t r, std::byte* to) {
  uint8_t packed[12], scale[8], min[8];
  std::memcpy(packed, stored, sizeof packed);
  unpack_k_scales(packed, scale, min);
  for (int i = 0; i < 8; ++i) {
    put_byte(to + 64, i * 16 + r, scale[i]);
    put_byte(to + 192, i * 16 + r, min[i]);
  }
}

// Each gives the codes of a block, and writes its scales for row r of the tile: `to` is where those
// of the block begin in the record of its span.
void read(Stored<BlockQ4_0> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ4_0, d)));
  *codes = nibbles(in.bytes(offsetof(BlockQ4_0, qs)));
}
void read(Stored<BlockIQ4_NL> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockIQ4_NL, d)));
  *codes = nibbles(in.bytes(offsetof(BlockIQ4_NL, qs)));
}
void read(Stored<BlockMXFP4> in, std::byte* to, int64_t r, Codes* codes) {
  put_byte(to, r, *in.bytes(offsetof(BlockMXFP4, e)));
  *codes = nibbles(in.bytes(offsetof(BlockMXFP4, qs)));
}
void read(Stored<BlockQ4_1> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ4_1, d)));
  put_half(to + 32, r, in.half(offsetof(BlockQ4_1, m)));
  *codes = nibbles(in.bytes(offsetof(BlockQ4_1, qs)));
}
void read(Stored<BlockQ5_0> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ5_0, d)));
  *codes = nibbles(in.bytes(offsetof(BlockQ5_0, qs)));
  add_fifth_bits(in.bytes(offsetof(BlockQ5_0, qh)), codes);
}
void read(Stored<BlockQ5_1> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ5_1, d)));
  put_half(to + 32, r, in.half(offsetof(BlockQ5_1, m)));
  *codes = nibbles(in.bytes(offsetof(BlockQ5_1, qs)));
  add_fifth_bits(in.bytes(offsetof(BlockQ5_1, qh)), codes);
}
void read(Stored<BlockQ8_0> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ8_0, d)));
  const uint8_t* const qs = in.bytes(offsetof(BlockQ8_0, qs));
  for (int i = 0; i < 4; ++i) codes->q[i] = word_at(qs + 8 * i) ^ each(0x80);
}
void read(Stored<BlockQ2_K> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ2_K, d)));
  put_half(to + 32, r, in.half(offsetof(BlockQ2_K, dmin)) ^ kSign);
  const uint8_t *const qs = in.bytes(offsetof(BlockQ2_K, qs)), *const scales = in.bytes(
                                                                   offsetof(BlockQ2_K, scales));
  for (int i = 0; i < 16; ++i) put_byte(to + 64, i * 16 + r, scales[i]);
  for (int b = 0; b < 8; ++b)
    for (int i = 0; i < 4; ++i) codes[b].q[i] = two_bit_order(qs, b, i);
}
void read(Stored<BlockQ3_K> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ3_K, d)));
  uint8_t packed[12];
  int8_t scale[16];
  std::memcpy(packed, in.bytes(offsetof(BlockQ3_K, scales)), sizeof packed);
  unpack_q3_k_scales(packed, scale);
  for (int i = 0; i < 16; ++i) put_byte(to + 32, i * 16 + r, scale[i]);
  const uint8_t *const qs = in.bytes(offsetof(BlockQ3_K, qs)), *const high = in.bytes(
                                                                   offsetof(BlockQ3_K, hmask));
  for (int b = 0; b < 8; ++b)
    for (int i = 0; i < 4; ++i)
      codes[b].q[i] = two_bit_order(qs, b, i) | (word_at(high + 8 * i) >> b & each(1)) << 2;
}
void read(Stored<BlockQ4_K> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ4_K, d)));
  put_half(to + 32, r, in.half(offsetof(BlockQ4_K, dmin)) ^ kSign);
  put_scale_pairs(in.bytes(offsetof(BlockQ4_K, scales)), r, to);
  nibbles_of_super(in.bytes(offsetof(BlockQ4_K, qs)), nullptr, codes);
}
void read(Stored<BlockQ5_K> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ5_K, d)));
  put_half(to + 32, r, in.half(offsetof(BlockQ5_K, dmin)) ^ kSign);
  put_scale_pairs(in.bytes(offsetof(BlockQ5_K, scales)), r, to);
  nibbles_of_super(in.bytes(offsetof(BlockQ5_K, qs)), in.bytes(offsetof(BlockQ5_K, qh)), codes);
}
void read(Stored<BlockQ6_K> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockQ6_K, d)));
  const uint8_t *const scales = in.bytes(offsetof(BlockQ6_K, scales)), *const qh = in.bytes(
                                                                           offsetof(BlockQ6_K, qh));
  for (int i = 0; i < 16; ++i) put_byte(to + 32, i * 16 + r, scales[i]);
  for (int b = 0; b < 8; ++b) {
    const int t = b % 4;
    const uint8_t* const low = in.bytes(offsetof(BlockQ6_K, ql)) + b / 4 * 64 + t % 2 * 32;
    for (int i = 0; i < 4; ++i)
      codes[b].q[i] = (word_at(low + 8 * i) >> (t / 2 * 4) & each(15)) | two_bit_order(qh, b, i)
                                                                             << 4;
  }
}
void read(Stored<BlockIQ4_XS> in, std::byte* to, int64_t r, Codes* codes) {
  put_half(to, r, in.half(offsetof(BlockIQ4_XS, d)));
  const int top = in.half(offsetof(BlockIQ4_XS, scales_h));
  const uint8_t* const low = in.bytes(offsetof(BlockIQ4_XS, scales_l));
  for (int b = 0; b < 8; ++b) {
    const int s = (low[b / 2] >> (b % 2 * 4) & 15) | (top >> (2 * b) & 3) << 4;
    put_byte(to + 32, b * 16 + r, s - 32);
    codes[b] = nibbles(in.bytes(offsetof(BlockIQ4_XS, qs)) + 16 * b);
  }
}

// Eight codes of kWidth bits, from the lowest bit of `at` on, as bytes.
template <int kWidth>
uint64_t spread(const std::byte* at) {
  if constexpr (kWidth == 8) return word_at(at);
  // In pieces that the machine loads at once.
  constexpr int kPiece = kWidth == 3 || kWidth == 6 ? kWidth * 2 / 3 : kWidth;
  uint64_t bits = 0, rest = 0;
  std::memcpy(&bits, at, kPiece);
  std::memcpy(&rest, at + kPiece, kWidth - kPiece);
  bits |= rest << (8 * kPiece % 64);
  // Halves apart, four times as wide; then their halves, and those of these.
  constexpr auto low = [](int bits_kept, uint64_t every) {
    return ((uint64_t{1} << bits_kept) - 1) * every;
  };
  constexpr uint64_t kFours = low(4 * kWidth, 1), kTwos = low(2 * kWidth, 0x0000000100000001u),
                     kOnes = low(kWidth, 0x0001000100010001u);
  bits = (bits & kFours) | bits >> (4 * kWidth) << 32;
  bits = (bits & kTwos) | (bits >> (2 * kWidth) & kTwos) << 16;
  return (bits & kOnes) | (bits >> kWidth & kOnes) << 8;
}
// `count` codes, a whole or half a block.
template <int kWidth>
void read_stream(const std::byte* at, int64_t count, Codes* codes) {
  for (int i = 0; i < 2; ++i) codes->q[i] = spread<kWidth>(at + kWidth * i);
  if (count == kBlockColumns)
    for (int i = 2; i < 4; ++i) codes->q[i] = spread<kWidth>(at + kWidth * i);
}

// One tile, and the rows of the matrix that it is filled from.
class TileWriter {
 public:
  TileWriter(const PackedView& packed, const WeightView& w, int64_t row, std::byte* tile)
      : packed_(packed),
        layout_(packed.layout),
        w_(w),
        row_(row),
        rows_(std::min(kTileRows, w.rows - row)),
        tile_(tile) {}

  void clear_scales() const {
    for (int64_t block = 0; block < layout_.blocks; block += layout_.span_blocks)
      std::memset(tile_ + layout_.record_at(block), 0, static_cast<size_t>(layout_.record_bytes));
    std::memset(tile_, 0, static_cast<size_t>(layout_.head_bytes));
  }
  template <typename Block, int kBits>
  void blocks() const {
    fill<kBits, Block::kElements / kBlockColumns>([this](int64_t r, int64_t first,
                                                         std::byte* scales, Codes* codes) {
      const int64_t index = first / (Block::kElements / kBlockColumns);
      const int64_t at = (row_ + r) * w_.row_bytes + index * static_cast<int64_t>(sizeof(Block));
      read(Stored<Block>{w_.parts[0] + at}, scales, r, codes);
    });
  }
  template <int kBits>
  void integers() const;
  template <int kWidth>
  void palette() const;

 private:
  Codes filler() const {
    const uint64_t code = each(packed_.format.table == PackedTable::kNone
                                   ? static_cast<uint64_t>(packed_.format.offset)
                                   : 0);
    return {{code, code, code, code}};
  }
  // Calls take(r, block, its scales, codes) for the rows of the tile, kPer blocks at a time, and
  // writes the codes (of 16 bits: both levels of a block). Eight blocks of all rows come first: as
  // much as a cache holds.
  template <int kBits, int kPer, typename Take>
  void fill(const Take& take) const {
    constexpr int kLevels = kBits == 16 ? 2 : 1;
    for (int64_t first = 0; first < layout_.blocks; first += 8) {
      const auto count = static_cast<int>(std::min<int64_t>(8, layout_.blocks - first));
      std::byte *codes_of[8], *scales_of[8];
      for (int b = 0; b < count; ++b) {
        codes_of[b] = tile_ + layout_.codes_at(first + b);
        scales_of[b] = tile_ + layout_.record_at(first + b);
        if (packed_.format.scales == PackedScales::kHalf) scales_of[b] += b % 2 * 32;
        if (packed_.format.scales == PackedScales::kExponent) scales_of[b] += b % 4 * 16;
      }
      for (int64_t r = 0; r < kTileRows; ++r) {
        for (int b = 0; b < count; b += kPer) {
          Codes codes[kPer * kLevels];
          if (r < rows_) {
            take(r, first + b, scales_of[b], codes);
          } else {
            for (Codes& empty : codes) empty = filler();
          }
          for (int i = 0; i < kPer * kLevels; ++i)
            put_codes<kBits>(codes[i],
                             codes_of[b + i / kLevels] + i % kLevels * kLevelBytes + 4 * r);
        }
      }
    }
  }
  int64_t columns_of(int64_t block) const {
    return std::min(kBlockColumns, w_.columns - block * kBlockColumns);
  }
  const std::byte* stream(int64_t row, int64_t block, int width) const {
    return w_.parts[0] + (row * w_.columns + block * kBlockColumns) * width / 8;
  }
  float read_table(int64_t row, float* values) const;
  template <int kWidth>
  void one_palette() const;
  template <int kWidth, int kLevels>
  void palettes() const;

  const PackedView& packed_;
  const PackedLayout& layout_;
  const WeightView& w_;
  int64_t row_, rows_;
  std::byte* tile_;
};

template <int kBits>
void TileWriter::integers() const {
  const int64_t scales = w_.columns / w_.encoding.block;
  const auto flip = each(static_cast<uint64_t>(packed_.format.offset));
  fill<kBits, 1>([&](int64_t r, int64_t block, std::byte* to, Codes* codes) {
    *codes = {};
    read_stream<kBits>(stream(row_ + r, block, kBits), columns_of(block), codes);
    for (uint64_t& eight : codes->q) eight ^= flip;
    uint16_t scale;
    const int64_t at = (row_ + r) * scales + block * kBlockColumns / w_.encoding.block;
    std::memcpy(&scale, w_.parts[1] + 2 * at, 2);
    if (packed_.format.scales == PackedScales::kHalf) {
      put_half(to, r, scale);
    } else if (block == 0) {
      const float value = f16_to_f32(scale);
      std::memcpy(tile_ + 4 * r, &value, 4);
    }
  });
}

// The entries of the table of a row, and the largest of their sizes.
float TileWriter::read_table(int64_t row, float* values) const {
  const auto entries = static_cast<int64_t>(1) << w_.encoding.bits;
  const std::byte* table = w_.parts[1] + 2 * entries * (row / w_.encoding.group);
  float largest = 0;
  for (int64_t i = 0; i < entries; ++i) {
    uint16_t bits;
    std::memcpy(&bits, table + 2 * i, 2);
    values[i] = f16_to_f32(bits);
    largest = std::max(largest, std::fabs(values[i]));
  }
  return largest;
}

// The number of steps for the largest of `values`, at most 127, that leaves the least error when
// all become whole steps.
float best_steps(std::span<const float> values, float largest) {
  float best = 127.0f, least = HUGE_VALF;
  for (float steps = 127.0f; steps >= 64.0f && largest > 0; steps -= 0.5f) {
    float error = 0;
    for (const float value : values) {
      const float exact = value / largest * steps, off = (exact - std::nearbyint(exact)) / steps;
      error += off * off;
    }
    if (error < least) {
      least = error;
      best = steps;
    }
  }
  return best;
}

// A table for all rows of the tile. In narrow matrices entry / scale is taken in 256ths, two bytes;
// in wide ones as a byte.
template <int kWidth>
void TileWriter::one_palette() const {
  constexpr int kEntries = 1 << kWidth;
  float values[kEntries];
  const float largest = read_table(row_, values);
  const bool wide = w_.columns >= kWideColumns;
  const float steps = wide ? best_steps(values, largest) : 127.0f + 127.0f / 256;
  const float scale = largest / steps;
  for (int64_t r = 0; r < rows_; ++r) std::memcpy(tile_ + 4 * r, &scale, 4);
  std::byte* const table = tile_ + 64;
  std::memset(table, 128, 64);
  for (int i = 0; i < kEntries && largest > 0; ++i) {
    const float code = values[i] / largest * steps;
    const int v = wide ? 256 * static_cast<int>(std::nearbyint(code))
                       : static_cast<int>(std::nearbyint(code * 256));
    const int first = (v + 128) >> 8;
    put_byte(table, i, first + 128);
    put_byte(table + 16, i, v - 256 * first + 128);
  }
  fill<std::max(kWidth, 2), 1>([this](int64_t r, int64_t block, std::byte*, Codes* codes) {
    *codes = {};
    read_stream<kWidth>(stream(row_ + r, block, kWidth), columns_of(block), codes);
  });
}

// Entries as codes of their own, with a scale for the 32 columns.
template <int kWidth, int kLevels>
void TileWriter::palettes() const {
  float tables[kTileRows][1 << kWidth];
  for (int64_t r = 0; r < rows_; ++r) {
    if (r > 0 && (row_ + r) % w_.encoding.group != 0) {
      std::memcpy(tables[r], tables[r - 1], sizeof tables[r]);
    } else {
      read_table(row_ + r, tables[r]);
    }
  }
  constexpr float kSteps = kLevels == 2 ? 127.0f * 256 + 127 : 127.0f;
  constexpr float kUnits = kLevels == 2 ? 256.0f : 1.0f;  // of a code in its scale
  fill<8 * kLevels, 1>([&](int64_t r, int64_t block, std::byte* to, Codes* codes) {
    read_stream<kWidth>(stream(row_ + r, block, kWidth), columns_of(block), codes);
    uint8_t bytes[kBlockColumns];
    float values[kBlockColumns] = {};
    std::memcpy(bytes, codes, sizeof bytes);
    for (int64_t l = 0; l < columns_of(block); ++l) values[l] = tables[r][bytes[l]];
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    // Not below the wanted one, so that no code is too large.
    const float wanted = largest * (kUnits / kSteps);
    uint16_t half = f32_to_f16(wanted);
    if (f16_to_f32(half) < wanted) ++half;
    put_half(to, r, half);
    const float inverse = largest > 0 ? kUnits / f16_to_f32(half) : 0.0f;
    uint8_t second[kBlockColumns];
    for (int64_t l = 0; l < kBlockColumns; ++l) {
      // Adding 3 * 2^22 rounds to a whole number, which then stands in the lowest bits.
      const auto rounded =
          static_cast<int32_t>(std::bit_cast<uint32_t>(values[l] * inverse + 12582912.0f)) -
          0x4B400000;
      const int first = kLevels == 2 ? (rounded + 128) >> 8 : rounded;
      bytes[l] = static_cast<uint8_t>(first + 128);
      second[l] = static_cast<uint8_t>(rounded - 256 * first + 128);
    }
    std::memcpy(codes, bytes, sizeof bytes);
    if constexpr (kLevels == 2) std::memcpy(codes + 1, second, sizeof second);
  });
}

template <int kWidth>
void TileWriter::palette() const {
  if constexpr (kWidth <= 4) {
    if (packed_.format.table == PackedTable::kTile) return one_palette<kWidth>();
  }
  packed_.format.bits == 16 ? palettes<kWidth, 2>() : palettes<kWidth, 1>();
}

}  // namespace

void pack_tile(const PackedView& to, const WeightView& w, int64_t row, std::byte* tile) {
  const TileWriter writer(to, w, row, tile);
  writer.clear_scales();
  switch (w.encoding.kind) {
    case EncodingKind::kQ4_0:
      return writer.blocks<BlockQ4_0, 4>();
    case EncodingKind::kQ4_1:
      return writer.blocks<BlockQ4_1, 4>();
    case EncodingKind::kQ5_0:
      return writer.blocks<BlockQ5_0, 5>();
    case EncodingKind::kQ5_1:
      return writer.blocks<BlockQ5_1, 5>();
    case EncodingKind::kQ8_0:
      return writer.blocks<BlockQ8_0, 8>();
    case EncodingKind::kQ2_K:
      return writer.blocks<BlockQ2_K, 2>();
    case EncodingKind::kQ3_K:
      return writer.blocks<BlockQ3_K, 3>();
    case EncodingKind::kQ4_K:
      return writer.blocks<BlockQ4_K, 4>();
    case EncodingKind::kQ5_K:
      return writer.blocks<BlockQ5_K, 5>();
    case EncodingKind::kQ6_K:
      return writer.blocks<BlockQ6_K, 6>();
    case EncodingKind::kIQ4_NL:
      return writer.blocks<BlockIQ4_NL, 4>();
    case EncodingKind::kIQ4_XS:
      return writer.blocks<BlockIQ4_XS, 4>();
    case EncodingKind::kMXFP4:
      return writer.blocks<BlockMXFP4, 4>();
    case EncodingKind::kInt:
      return w.encoding.bits == 4 ? writer.integers<4>() : writer.integers<8>();
    default:
      break;
  }
  switch (w.encoding.bits) {
    case 1:
      return writer.palette<1>();
    case 2:
      return writer.palette<2>();
    case 3:
      return writer.palette<3>();
    case 4:
      return writer.palette<4>();
    case 6:
      return writer.palette<6>();
    default:
      return writer.palette<8>();
  }
}

}  // namespace pome::kernels
