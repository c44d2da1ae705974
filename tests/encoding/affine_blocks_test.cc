// Blocks taken apart give what the decoder gives, bit for bit.
#include "encoding/affine_blocks.h"

#include <gtest/gtest.h>

#include <random>

#include "encoding/block_bytes.h"

namespace pome {
namespace {

TEST(AffineBlocks, SayWhatTheDecoderSays) {
  std::mt19937 random(11);
  for (const EncodingKind kind : {EncodingKind::kQ4_1, EncodingKind::kQ4_K}) {
    ASSERT_TRUE(is_affine4(kind));
    constexpr int64_t kBlocks = 37;
    testing::Bytes bytes(static_cast<size_t>(kBlocks * traits(kind).block_bytes));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xFF);
    for (int64_t b = 0; b < kBlocks; ++b)
      for (const size_t field : {0, 2}) {  // any binary16 that is a number
        const auto half = static_cast<uint16_t>((random() & 0x83FF) | random() % 31 << 10);
        testing::put_u16(bytes, static_cast<size_t>(b * traits(kind).block_bytes) + field, half);
      }
    testing::put_u16(bytes, 0, 0);  // a scale of 0: the minimum alone
    const std::vector<float> expected = testing::decode_blocks(kind, bytes);
    std::vector<uint8_t> codes(expected.size() / 2);
    std::vector<float> scales(expected.size() / kAffineGroup), minima(scales.size());
    split_affine4(kind, bytes.data(), kBlocks, codes.data(), scales.data(), minima.data());
    for (size_t i = 0; i < expected.size(); ++i) {
      const float code = static_cast<float>(codes[i / 2] >> (i % 2 * 4) & 15);
      ASSERT_EQ(scales[i / kAffineGroup] * code + minima[i / kAffineGroup], expected[i]) << i;
    }
  }
  EXPECT_FALSE(is_affine4(EncodingKind::kQ4_0));
  EXPECT_FALSE(is_affine4(EncodingKind::kQ5_1));
}

}  // namespace
}  // namespace pome
