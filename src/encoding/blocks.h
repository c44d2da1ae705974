// Byte layouts of the block encodings, one struct per type, for decoders and kernels.
//
// A block is plain little-endian bytes; arrays of blocks in a file have no particular alignment, so
// copy a block (memcpy) before reading its fields. `d` and `dmin` are binary16 bit patterns. The
// decode rule of each type stands beside its struct: q is the stored code, the result is float32
// arithmetic in exactly the order written, which makes it equal to ggml's bit for bit.
// Source: the GGUF specification; the tables of docs/encodings.md say the same in one place.
#pragma once

#include <bit>
#include <cstdint>

namespace pome {

static_assert(std::endian::native == std::endian::little, "block layouts are read in place");

// ---- 32 weights: byte j of qs holds weight j (low nibble) and weight j + 16 (high nibble). ----

struct BlockQ4_0 {  // d * (q - 8)
  static constexpr int kElements = 32;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {  // d * q + m
  static constexpr int kElements = 32;
  uint16_t d, m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 {  // q = nibble + 16 * bit e of qh;  d * (q - 16)
  static constexpr int kElements = 32;
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {  // q as Q5_0;  d * q + m
  static constexpr int kElements = 32;
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

struct BlockQ8_0 {  // d * q
  static constexpr int kElements = 32;
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

struct BlockIQ4_NL {  // d * kIq4Levels[q]
  static constexpr int kElements = 32;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

struct BlockMXFP4 {  // 2^(e - 128) * kFp4Doubled[q]
  static constexpr int kElements = 32;
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// ---- 64 and 128 weights ----

// Four sub-blocks of 16 with an unsigned E4M3 scale each; byte j of a sub-block's eight holds its
// weights j (low) and j + 8 (high).
struct BlockNVFP4 {  // scale / 2 * kFp4Doubled[q]
  static constexpr int kElements = 64;
  uint8_t scales[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

struct BlockQ1_0 {  // weight e: bit e, in order from the lowest;  bit ? d : -d
  static constexpr int kElements = 128;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ1_0) == 18);

struct BlockQ2_0 {  // weight e: bits 2e, 2e + 1, in order from the lowest;  d * (q - 1)
  static constexpr int kElements = 64;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ2_0) == 18);

// ---- 256 weights. "Two-bit order": bits 2j, 2j+1 of qs[32h + l] are weight 128h + 32j + l. ----

struct BlockQ2_K {  // two-bit order; s = scales[e / 16];  d * (s & 15) * q - dmin * (s >> 4)
  static constexpr int kElements = 256;
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// Two-bit order for the low bits; q is 4 less unless bit e / 32 of hmask[e % 32] is set. 16 scales
// of six bits, see unpack_q3_k_scales.
struct BlockQ3_K {  // d * (s - 32) * q
  static constexpr int kElements = 256;
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// Byte qs[32c + l] holds weight 64c + l (low) and 64c + 32 + l (high). Eight pairs of six-bit scale
// and minimum, one per 32 weights, see unpack_k_scales.
struct BlockQ4_K {  // d * s * q - dmin * m
  static constexpr int kElements = 256;
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {  // as Q4_K with q += 16 * bit (e / 32) of qh[e % 32]
  static constexpr int kElements = 256;
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// Weight 128h + 32t + l: low four bits from ql[64h + 32 (t % 2) + l] (low nibble for t < 2), high
// two bits are bits 2t, 2t+1 of qh[32h + l].
struct BlockQ6_K {  // d * scales[e / 16] * (q - 32)
  static constexpr int kElements = 256;
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// Sub-block b of 32: 16 bytes, low nibbles first. s = nibble b of scales_l + 16 * bits 2b, 2b+1 of
// scales_h.
struct BlockIQ4_XS {  // d * (s - 32) * kIq4Levels[q]
  static constexpr int kElements = 256;
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// Ternary digits, five to a byte of qs and four to a byte of qh, as a fraction in base three: digit
// n is the carry of 3 * (byte * 3^n mod 256). Digit-major: n over qs[0..31], n over qs[32..47], n
// over qh.
struct BlockTQ1_0 {  // d * (digit - 1)
  static constexpr int kElements = 256;
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

struct BlockTQ2_0 {  // two-bit order;  d * (q - 1)
  static constexpr int kElements = 256;
  uint8_t qs[64];
  uint16_t d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

// ---- 256 weights as points of a fixed grid (grids.h). An entry is 8 weights for IQ1 and IQ2, 4
// for IQ3; "packed signs" are seven bits whose parity is the eighth (grid_signs). ----

// Per 32 weights four 16-bit words: two with four 8-bit entries, then 32 bits: four packed signs,
// from the lowest, and a 4-bit scale s on top.
struct BlockIQ2_XXS {  // d * (0.5 + s) * 0.25 * point
  static constexpr int kElements = 256;
  uint16_t d;
  uint16_t qs[32];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

// One word per entry: 9 bits of index, packed signs above. A scale nibble per 16 weights.
struct BlockIQ2_XS {  // d * (0.5 + s) * 0.25 * point
  static constexpr int kElements = 256;
  uint16_t d;
  uint16_t qs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

// Index of entry k: qs[k], plus bits 2 (k % 4) and up of qh[k / 4] as bits 8 and 9. A scale nibble
// per 16 weights; one sign byte per entry.
struct BlockIQ2_S {  // d * (0.5 + s) * 0.25 * point
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

// Eight 8-bit entries and a 32-bit word (four packed signs, 4-bit scale s) per 32 weights.
struct BlockIQ3_XXS {  // d * (0.5 + s) * 0.5 * point
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t qs[64];
  uint8_t signs_and_scales[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

// Index of entry k: qs[k] + 256 * bit k of qh. A scale nibble per 32 weights; a sign byte per two
// entries.
struct BlockIQ3_S {  // d * (1 + 2 s) * point
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

// Per 32 weights a word of qh: bits 3j.. are the high three index bits of entry j, bits 12..14 the
// scale s, bit 15 makes the shift -1/8 instead of +1/8.
struct BlockIQ1_S {  // d * (2 s + 1) * (point + shift)
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t qs[32];
  uint16_t qh[8];
};
static_assert(sizeof(BlockIQ1_S) == 50);

// A nibble of qh per entry: three high index bits, and the shift's sign. Word i of scales: four
// 3-bit scales (16 weights each) and, on top, nibble i of the binary16 d.
struct BlockIQ1_M {  // d * (2 s + 1) * (point + shift)
  static constexpr int kElements = 256;
  uint8_t qs[32];
  uint8_t qh[16];
  uint16_t scales[4];
};
static_assert(sizeof(BlockIQ1_M) == 56);

// ---- Shared tables and unpacking ----

// Levels of IQ4_NL and IQ4_XS.
inline constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of a 4-bit float with two exponent bits and one mantissa bit (OCP Microscaling
// Formats 1.0, E2M1). Code 8, negative zero, is a plain zero.
inline constexpr int8_t kFp4Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Six-bit scales and minima of Q4_K and Q5_K: the first four of each stand in the low six bits of
// bytes 0..3 and 4..7, whose top two bits are the top bits of the other four; the low nibbles of
// those are in bytes 8..11 (scale low, minimum high).
inline void unpack_k_scales(const uint8_t (&packed)[12], uint8_t (&scale)[8], uint8_t (&min)[8]) {
  for (int j = 0; j < 4; ++j) {
    scale[j] = packed[j] & 63;
    min[j] = packed[j + 4] & 63;
    scale[j + 4] = static_cast<uint8_t>((packed[j + 8] & 15) | ((packed[j] >> 6) << 4));
    min[j + 4] = static_cast<uint8_t>((packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4));
  }
}

// The 16 six-bit scales of Q3_K, 32 already taken off: low nibbles in bytes 0..7 (scales 0..7 low,
// 8..15 high), top bits in bytes 8..11, two for each of scales i, i + 4, i + 8, i + 12.
inline void unpack_q3_k_scales(const uint8_t (&packed)[12], int8_t (&scale)[16]) {
  for (int j = 0; j < 16; ++j) {
    const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int high = (packed[8 + j % 4] >> (2 * (j / 4))) & 3;
    scale[j] = static_cast<int8_t>((low | (high << 4)) - 32);
  }
}

// 2^(e - 128): half of an E8M0 scale, the other half of kFp4Doubled. e = 0 and 1 are subnormal.
inline float e8m0_half(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (uint32_t{e} - 1) << 23);
}

// Half of an unsigned E4M3 scale (bias 7). Bit 7 is not part of the value; 0x7F, its NaN, counts
// as zero.
inline float ue4m3_half(uint8_t x) {
  if (x == 0x7F) return 0.0f;
  const uint32_t exponent = (x >> 3) & 15, mantissa = x & 7;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return std::bit_cast<float>(((exponent + 119) << 23) | (mantissa << 20));
}

}  // namespace pome
