// Blocks written byte by byte, with values worked out by hand from docs/encodings.md. Most put one
// odd code among zeros, so that a weight in the wrong place is seen.
#include "encoding/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block_bytes.h"
#include "encoding/grids.h"

namespace pome {
namespace {

using testing::Bytes;
using testing::decode_blocks;
using testing::put_u16;
using testing::put_u32;
using testing::zero_block;

constexpr uint16_t kOne = 0x3C00, kTwo = 0x4000, kHalf = 0x3800, kMinusOne = 0xBC00;
constexpr uint16_t kInf = 0x7C00, kNan = 0x7E00;

std::byte b(int value) { return static_cast<std::byte>(value); }

// All values are `rest`, but for those listed.
void expect_values(const std::vector<float>& values, float rest,
                   const std::vector<std::pair<size_t, float>>& others) {
  std::vector<float> expected(values.size(), rest);
  for (const auto& [index, value] : others) expected.at(index) = value;
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], expected[i]) << "weight " << i;
}

TEST(Blocks, Q4_0) {
  Bytes block = zero_block(EncodingKind::kQ4_0);
  put_u16(block, 0, kHalf);
  block[2 + 3] = b(0xF1);
  expect_values(decode_blocks(EncodingKind::kQ4_0, block), -4.0f, {{3, -3.5f}, {19, 3.5f}});
}

TEST(Blocks, Q4_1AddsTheMinimum) {
  Bytes block = zero_block(EncodingKind::kQ4_1);
  put_u16(block, 0, kTwo);
  put_u16(block, 2, kMinusOne);
  block[4 + 15] = b(0x2F);
  expect_values(decode_blocks(EncodingKind::kQ4_1, block), -1.0f, {{15, 29.0f}, {31, 3.0f}});
}

TEST(Blocks, Q5_0TakesTheFifthBitInOrderOfTheWeights) {
  Bytes block = zero_block(EncodingKind::kQ5_0);
  put_u16(block, 0, kOne);
  put_u32(block, 2, 1u << 31 | 1u << 2);
  block[6 + 15] = b(0x70);
  block[6 + 2] = b(0x05);
  expect_values(decode_blocks(EncodingKind::kQ5_0, block), -16.0f, {{2, 5.0f}, {31, 7.0f}});
}

TEST(Blocks, Q5_1) {
  Bytes block = zero_block(EncodingKind::kQ5_1);
  put_u16(block, 0, kTwo);
  put_u16(block, 2, kOne);
  put_u32(block, 4, 1u << 16);
  block[8] = b(0x30);
  expect_values(decode_blocks(EncodingKind::kQ5_1, block), 1.0f, {{16, 39.0f}});
}

TEST(Blocks, Q8_0) {
  Bytes block = zero_block(EncodingKind::kQ8_0);
  put_u16(block, 0, kTwo);
  block[2] = b(0x80);
  block[33] = b(0x7F);
  expect_values(decode_blocks(EncodingKind::kQ8_0, block), 0.0f, {{0, -256.0f}, {31, 254.0f}});
}

TEST(Blocks, Q2_K) {
  Bytes block = zero_block(EncodingKind::kQ2_K);
  for (size_t i = 0; i < 16; ++i) block[i] = b(0x11);
  put_u16(block, 80, kOne);
  put_u16(block, 82, kHalf);
  block[16 + 32 + 17] = b(3 << 4);  // second half, two-bit field 2: weight 128 + 64 + 17
  block[8 + 2 * 2 + 1] = b(0x4F);   // and its sub-block: scale 15, minimum 4
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 208; i < 224; ++i) others.emplace_back(i, -2.0f);
  others.emplace_back(209, 43.0f);
  expect_values(decode_blocks(EncodingKind::kQ2_K, block), -0.5f, others);
}

TEST(Blocks, Q3_K) {
  Bytes block = zero_block(EncodingKind::kQ3_K);
  put_u16(block, 108, kOne);
  // Sub-block 13: low nibble 5 (high nibble of byte 5), top bits 2 -> 37 - 32 = 5; all others -32.
  block[96 + 5] = b(0x50);
  block[96 + 8 + 1] = b(2 << 6);
  // Weight 128 + 2 * 32 + 16 + 3 = 211: two-bit field 2 of byte 32 + 19, mask bit 4 + 2 of byte 19.
  block[32 + 32 + 19] = b(2 << 4);
  block[19] = b(1 << 6);
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 208; i < 224; ++i) others.emplace_back(i, -20.0f);
  others.emplace_back(211, 10.0f);
  expect_values(decode_blocks(EncodingKind::kQ3_K, block), 128.0f, others);
}

// Sub-block 2 has scale 9 and minimum 33, sub-block 6 scale 0x2A and minimum 0x15.
Bytes k_scales(EncodingKind kind) {
  Bytes block = zero_block(kind);
  put_u16(block, 0, kOne);
  put_u16(block, 2, kTwo);
  block[4 + 2] = b(9 | (0x2A >> 4) << 6);
  block[4 + 6] = b(33 | (0x15 >> 4) << 6);
  block[4 + 10] = b((0x2A & 15) | (0x15 & 15) << 4);
  return block;
}

TEST(Blocks, Q4_K) {
  Bytes block = k_scales(EncodingKind::kQ4_K);
  block[16 + 32 + 1] = b(0x0C);       // weight 65, sub-block 2
  block[16 + 3 * 32 + 31] = b(0x07);  // weight 223, sub-block 6
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 64; i < 96; ++i) others.emplace_back(i, -66.0f);
  for (size_t i = 192; i < 224; ++i) others.emplace_back(i, -42.0f);
  others.emplace_back(65, 12 * 9 - 66.0f);
  others.emplace_back(223, 7 * 42 - 42.0f);
  expect_values(decode_blocks(EncodingKind::kQ4_K, block), 0.0f, others);
}

TEST(Blocks, Q5_K) {
  Bytes block = k_scales(EncodingKind::kQ5_K);
  block[16 + 1] = b(1 << 2);  // fifth bit of weight 65
  block[48 + 32 + 1] = b(0x0C);
  block[16 + 31] = b(1 << 6);  // fifth bit of weight 223
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 64; i < 96; ++i) others.emplace_back(i, -66.0f);
  for (size_t i = 192; i < 224; ++i) others.emplace_back(i, -42.0f);
  others.emplace_back(65, 28 * 9 - 66.0f);
  others.emplace_back(223, 16 * 42 - 42.0f);
  expect_values(decode_blocks(EncodingKind::kQ5_K, block), 0.0f, others);
}

TEST(Blocks, Q6_K) {
  Bytes block = zero_block(EncodingKind::kQ6_K);
  put_u16(block, 208, kHalf);
  block[192 + 15] = b(-2);
  // Weight 128 + 3 * 32 + 20 = 244 (sub-block 15): high nibble of ql[64 + 32 + 20], bits 6, 7 of
  // qh[32 + 20].
  block[64 + 32 + 20] = b(0xA0);
  block[128 + 32 + 20] = b(3 << 6);
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 240; i < 256; ++i) others.emplace_back(i, 32.0f);
  others.emplace_back(244, -(48 + 10 - 32.0f));
  expect_values(decode_blocks(EncodingKind::kQ6_K, block), 0.0f, others);
}

TEST(Blocks, IQ4_NL) {
  Bytes block = zero_block(EncodingKind::kIQ4_NL);
  put_u16(block, 0, kTwo);
  block[2 + 7] = b(0x8F);
  expect_values(decode_blocks(EncodingKind::kIQ4_NL, block), -254.0f, {{7, 226.0f}, {23, 2.0f}});
}

TEST(Blocks, IQ4_XS) {
  Bytes block = zero_block(EncodingKind::kIQ4_XS);
  put_u16(block, 0, kOne);
  put_u16(block, 2, 3u << 10);  // sub-block 5: 3 on top
  block[4 + 2] = b(0x10);       // and 1 below: 49 - 32 = 17
  block[8 + 16 * 5 + 4] = b(0x90);
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 160; i < 192; ++i) others.emplace_back(i, -127 * 17.0f);
  others.emplace_back(180, 13 * 17.0f);
  expect_values(decode_blocks(EncodingKind::kIQ4_XS, block), 127 * 32.0f, others);
}

TEST(Blocks, TQ1_0) {
  // 243 as a fraction of 256 is 0.22112... in base three.
  const int digits[5] = {2, 2, 1, 1, 2};
  Bytes block = zero_block(EncodingKind::kTQ1_0);
  put_u16(block, 52, kTwo);
  block[1] = b(243);
  block[32] = b(243);
  block[48 + 3] = b(243);
  std::vector<std::pair<size_t, float>> others;
  for (size_t n = 0; n < 5; ++n) {
    const float value = 2.0f * static_cast<float>(digits[n] - 1);
    others.emplace_back(32 * n + 1, value);
    others.emplace_back(160 + 16 * n, value);
    if (n < 4) others.emplace_back(240 + 4 * n + 3, value);
  }
  expect_values(decode_blocks(EncodingKind::kTQ1_0, block), -2.0f, others);
}

TEST(Blocks, TQ2_0) {
  Bytes block = zero_block(EncodingKind::kTQ2_0);
  put_u16(block, 64, kTwo);
  block[32 + 9] = b(2 << 6 | 1 << 2 | 3);
  expect_values(decode_blocks(EncodingKind::kTQ2_0, block), -2.0f,
                {{128 + 96 + 9, 2.0f}, {128 + 32 + 9, 0.0f}, {128 + 9, 4.0f}});
}

TEST(Blocks, Q1_0) {
  Bytes block = zero_block(EncodingKind::kQ1_0);
  put_u16(block, 0, kTwo);
  block[2 + 3] = b(1 << 5);
  block[2 + 15] = b(1 << 7);
  expect_values(decode_blocks(EncodingKind::kQ1_0, block), -2.0f, {{29, 2.0f}, {127, 2.0f}});
}

TEST(Blocks, Q2_0) {
  Bytes block = zero_block(EncodingKind::kQ2_0);
  put_u16(block, 0, kTwo);
  block[2] = b(1 | 2 << 2 | 3 << 4);
  block[2 + 15] = b(2 << 6);
  expect_values(decode_blocks(EncodingKind::kQ2_0, block), -2.0f,
                {{0, 0.0f}, {1, 2.0f}, {2, 4.0f}, {63, 2.0f}});
}

TEST(Blocks, MXFP4) {
  Bytes block = zero_block(EncodingKind::kMXFP4);
  block[0] = b(129);  // 2
  block[1 + 4] = b(0xF1);
  block[1 + 5] = b(0x8D);
  expect_values(decode_blocks(EncodingKind::kMXFP4, block), 0.0f,
                {{4, 2.0f}, {20, -24.0f}, {5, -12.0f}});
}

TEST(Blocks, MXFP4ScaleRange) {
  for (int e = 0; e < 256; ++e) {
    EXPECT_EQ(e8m0_half(static_cast<uint8_t>(e)), std::ldexp(1.0f, e - 128)) << e;
  }
}

TEST(Blocks, NVFP4) {
  Bytes block = zero_block(EncodingKind::kNVFP4);
  block[2] = b(0x38 | 4);  // exponent 7 (1), mantissa 4/8: 1.5, half of it 0.75
  block[4 + 2 * 8 + 3] = b(0xE5);
  expect_values(decode_blocks(EncodingKind::kNVFP4, block), 0.0f, {{35, 4.5f}, {43, -6.0f}});
}

TEST(Blocks, NVFP4ScaleRange) {
  for (int x = 0; x < 256; ++x) {
    const int exponent = x >> 3 & 15, mantissa = x & 7;
    float scale = exponent == 0
                      ? std::ldexp(static_cast<float>(mantissa), -9)
                      : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, exponent - 7);
    if (x == 0x7F) scale = 0.0f;
    EXPECT_EQ(ue4m3_half(static_cast<uint8_t>(x)), scale / 2) << x;
  }
}

TEST(Blocks, GridSignsHaveEvenParity) {
  for (uint32_t packed = 0; packed < 256; ++packed) {
    const unsigned signs = grid_signs(packed);
    EXPECT_EQ(signs & 127, packed & 127);
    EXPECT_EQ(std::popcount(signs) % 2, 0);
  }
}

template <typename Grid>
void expect_ascending(const Grid& grid) {
  for (size_t i = 1; i < grid.size(); ++i) {
    // The last coordinate is the most significant.
    EXPECT_TRUE(std::lexicographical_compare(grid[i - 1].rbegin(), grid[i - 1].rend(),
                                             grid[i].rbegin(), grid[i].rend()))
        << i;
  }
}

TEST(Blocks, GridsHaveTheirKnownEnds) {
  const GridPoint8 eights = {8, 8, 8, 8, 8, 8, 8, 8};
  EXPECT_EQ(iq2_xxs_grid()[0], eights);
  EXPECT_EQ(iq2_xs_grid()[0], eights);
  EXPECT_EQ(iq2_s_grid()[0], eights);
  EXPECT_EQ(iq2_xxs_grid()[1], (GridPoint8{43, 8, 8, 8, 8, 8, 8, 8}));
  EXPECT_EQ(iq3_xxs_grid()[0], (GridPoint4{4, 4, 4, 4}));
  EXPECT_EQ(iq3_s_grid()[0], (GridPoint4{1, 1, 1, 1}));
  EXPECT_EQ(iq1_grid()[0], (GridPoint8{-1, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(iq1_grid()[2047], (GridPoint8{1, 1, 1, 1, 1, 1, 1, 1}));
  expect_ascending(iq2_xxs_grid());
  expect_ascending(iq2_xs_grid());
  expect_ascending(iq2_s_grid());
  expect_ascending(iq3_xxs_grid());
  expect_ascending(iq3_s_grid());
  expect_ascending(iq1_grid());
}

TEST(Blocks, IQ2_XXS) {
  Bytes block = zero_block(EncodingKind::kIQ2_XXS);
  put_u16(block, 0, kOne);
  // Sub-block 3: entry 2 is grid point 1; signs of entry 1 = 0000011 (even: no eighth); scale 2.
  block[2 + 3 * 8 + 2] = b(1);
  put_u32(block, 2 + 3 * 8 + 4, 2u << 28 | 3u << 7);
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 96; i < 128; ++i) others.emplace_back(i, 5.0f);
  others.emplace_back(104, -5.0f);
  others.emplace_back(105, -5.0f);
  others.emplace_back(112, 43 * 0.625f);
  expect_values(decode_blocks(EncodingKind::kIQ2_XXS, block), 1.0f, others);
}

TEST(Blocks, IQ2_XS) {
  Bytes block = zero_block(EncodingKind::kIQ2_XS);
  put_u16(block, 0, kOne);
  put_u16(block, 2 + 2 * 5, 1u << 9);  // entry 5: sign of its first weight, hence of its last
  block[66 + 1] = b(0x01);             // scale of entries 4 and 5
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 32; i < 48; ++i) others.emplace_back(i, 3.0f);
  others.emplace_back(40, -3.0f);
  others.emplace_back(47, -3.0f);
  expect_values(decode_blocks(EncodingKind::kIQ2_XS, block), 1.0f, others);
}

TEST(Blocks, IQ2_S) {
  Bytes block = zero_block(EncodingKind::kIQ2_S);
  put_u16(block, 0, kOne);
  block[2 + 6] = b(255);      // entry 6: index 255 + 3 * 256 = 1023
  block[66 + 1] = b(3 << 4);  // entry 6 is number 2 of its four
  block[34 + 31] = b(0x80);   // sign of the last weight
  block[74 + 7] = b(0x10);    // scale of the last two entries
  std::vector<std::pair<size_t, float>> others;
  for (size_t j = 0; j < 8; ++j) others.emplace_back(48 + j, iq2_s_grid()[1023][j] / 8.0f);
  for (size_t i = 240; i < 256; ++i) others.emplace_back(i, 3.0f);
  others.emplace_back(255, -3.0f);
  expect_values(decode_blocks(EncodingKind::kIQ2_S, block), 1.0f, others);
}

TEST(Blocks, IQ3_XXS) {
  Bytes block = zero_block(EncodingKind::kIQ3_XXS);
  put_u16(block, 0, kTwo);
  block[2 + 8 + 3] = b(255);                    // sub-block 1, entry 3: weights 44..47
  put_u32(block, 66 + 4, 1u << 28 | 1u << 21);  // scale 1; sign of weights 56 and 63
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 32; i < 64; ++i) others.emplace_back(i, 6.0f);
  for (size_t j = 0; j < 4; ++j) others.emplace_back(44 + j, iq3_xxs_grid()[255][j] * 1.5f);
  others.emplace_back(56, -6.0f);
  others.emplace_back(63, -6.0f);
  expect_values(decode_blocks(EncodingKind::kIQ3_XXS, block), 2.0f, others);
}

TEST(Blocks, IQ3_S) {
  Bytes block = zero_block(EncodingKind::kIQ3_S);
  put_u16(block, 0, kOne);
  block[2 + 63] = b(255);
  block[66 + 7] = b(0x80);   // entry 63: index 511
  block[74 + 31] = b(0x08);  // sign of weight 251
  block[106 + 3] = b(0x20);  // scale of the last 32: 5
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 224; i < 256; ++i) others.emplace_back(i, 5.0f);
  for (size_t j = 0; j < 4; ++j) others.emplace_back(252 + j, iq3_s_grid()[511][j] * 5.0f);
  others.emplace_back(251, -5.0f);
  expect_values(decode_blocks(EncodingKind::kIQ3_S, block), 1.0f, others);
}

TEST(Blocks, IQ1_S) {
  Bytes block = zero_block(EncodingKind::kIQ1_S);
  put_u16(block, 0, kOne);
  block[2 + 4 * 2 + 3] = b(255);
  put_u16(block, 34 + 2 * 2, static_cast<uint16_t>(0x8000 | 3 << 12 | 7 << 9));
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 64; i < 96; ++i) others.emplace_back(i, 7 * -1.125f);
  for (size_t i = 88; i < 96; ++i) others.emplace_back(i, 7 * 0.875f);
  expect_values(decode_blocks(EncodingKind::kIQ1_S, block), -0.875f, others);
}

TEST(Blocks, IQ1_M) {
  Bytes block = zero_block(EncodingKind::kIQ1_M);
  // d = 2.0 = 0x4000 in the top nibbles, lowest first; sub-block 15 has scale 1.
  put_u16(block, 48 + 6, static_cast<uint16_t>(4u << 12 | 1u << 9));
  block[31] = b(255);
  block[32 + 15] = b(0x7 << 4 | 0x8);  // entry 30: shift down; entry 31: index 2047
  std::vector<std::pair<size_t, float>> others;
  for (size_t i = 240; i < 248; ++i) others.emplace_back(i, 6 * -1.125f);
  for (size_t i = 248; i < 256; ++i) others.emplace_back(i, 6 * 1.125f);
  expect_values(decode_blocks(EncodingKind::kIQ1_M, block), 2 * -0.875f, others);
}

TEST(Blocks, InfiniteAndNanScalesPassThrough) {
  Bytes block = zero_block(EncodingKind::kQ4_0);
  put_u16(block, 0, kInf);
  block[2] = b(0x8F);
  const std::vector<float> inf = decode_blocks(EncodingKind::kQ4_0, block);
  EXPECT_EQ(inf[0], std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(inf[16]));  // infinity times zero
  EXPECT_EQ(inf[1], -std::numeric_limits<float>::infinity());
  put_u16(block, 0, kNan);
  for (const float value : decode_blocks(EncodingKind::kQ4_0, block)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

TEST(Blocks, PlainTypes) {
  Bytes i64(8);
  const int64_t big = (int64_t{1} << 40) + 1;
  std::memcpy(i64.data(), &big, 8);
  EXPECT_EQ(decode_blocks(EncodingKind::kI64, i64)[0], 0x1p40f);
  EXPECT_EQ(decode_blocks(EncodingKind::kI8, {b(0x80)})[0], -128.0f);
  EXPECT_EQ(decode_blocks(EncodingKind::kI16, {b(0), b(0x80)})[0], -32768.0f);
  EXPECT_EQ(decode_blocks(EncodingKind::kI32, {b(0xFF), b(0xFF), b(0xFF), b(0xFF)})[0], -1.0f);
  EXPECT_EQ(decode_blocks(EncodingKind::kF16, {b(1), b(0)})[0], 0x1p-24f);
  EXPECT_EQ(decode_blocks(EncodingKind::kBF16, {b(0xC0), b(0x3F)})[0], 1.5f);
  EXPECT_EQ(decode_blocks(EncodingKind::kF8E4M3, {b(0x7E)})[0], 448.0f);
  EXPECT_EQ(decode_blocks(EncodingKind::kF8E4M3, {b(0x81)})[0], -0x1p-9f);
  EXPECT_TRUE(std::isnan(decode_blocks(EncodingKind::kF8E4M3, {b(0x7F)})[0]));
  EXPECT_EQ(decode_blocks(EncodingKind::kF8E5M2, {b(0x7B)})[0], 57344.0f);
  EXPECT_EQ(decode_blocks(EncodingKind::kF8E5M2, {b(0xFC)})[0],
            -std::numeric_limits<float>::infinity());
  Bytes f64(8);
  const double tenth = 0.1;
  std::memcpy(f64.data(), &tenth, 8);
  EXPECT_EQ(decode_blocks(EncodingKind::kF64, f64)[0], 0.1f);
}

// A tensor in a file may start at an odd address.
TEST(Blocks, NoAlignmentIsNeeded) {
  for (int k = 0; k < kEncodingKindCount; ++k) {
    const EncodingTraits& type = traits(static_cast<EncodingKind>(k));
    if (type.decode == nullptr) continue;
    const size_t size = 3 * static_cast<size_t>(type.block_bytes);
    Bytes aligned(size), shifted(size + 1);
    for (size_t i = 0; i < size; ++i)
      aligned[i] = shifted[i + 1] = b(static_cast<int>(i * 37 % 59));
    std::vector<float> out(3 * static_cast<size_t>(type.block_elements), -1.0f);
    type.decode(shifted.data() + 1, 3, out.data());
    const std::vector<float> expected = decode_blocks(type.kind, aligned);
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), 4 * out.size()), 0) << type.name;
  }
}

}  // namespace
}  // namespace pome
