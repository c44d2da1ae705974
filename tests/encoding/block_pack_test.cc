// Packing against decoding: random codes and scales must decode to what the rules say.
#include "encoding/block_pack.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "encoding/blocks.h"
#include "tensor/half.h"

namespace pome {
namespace {

struct Form {
  EncodingKind kind;
  int levels;          // number of codes
  int sub_block;       // weights that share a scale; 0: d is the only one
  int low, high;       // of the scales
  bool pairs = false;  // with minima
};
const Form kForms[] = {
    {EncodingKind::kQ4_0, 16, 0, 0, 0},         {EncodingKind::kQ5_0, 32, 0, 0, 0},
    {EncodingKind::kQ8_0, 256, 0, 0, 0},        {EncodingKind::kIQ4_NL, 16, 0, 0, 0},
    {EncodingKind::kMXFP4, 16, 0, 0, 0},        {EncodingKind::kQ4_1, 16, 0, 0, 0, true},
    {EncodingKind::kQ5_1, 32, 0, 0, 0, true},   {EncodingKind::kQ2_K, 4, 16, 0, 15, true},
    {EncodingKind::kQ3_K, 8, 16, -32, 31},      {EncodingKind::kQ4_K, 16, 32, 0, 63, true},
    {EncodingKind::kQ5_K, 32, 32, 0, 63, true}, {EncodingKind::kQ6_K, 64, 16, -128, 127},
    {EncodingKind::kIQ4_XS, 16, 32, -32, 31},
};

float level_of(EncodingKind kind, int code) {
  switch (kind) {
    case EncodingKind::kQ4_0:
      return static_cast<float>(code - 8);
    case EncodingKind::kQ5_0:
      return static_cast<float>(code - 16);
    case EncodingKind::kQ8_0:
      return static_cast<float>(code - 128);
    case EncodingKind::kQ3_K:
      return static_cast<float>(code - 4);
    case EncodingKind::kQ6_K:
      return static_cast<float>(code - 32);
    case EncodingKind::kIQ4_NL:
    case EncodingKind::kIQ4_XS:
      return kIq4Levels[code];
    case EncodingKind::kMXFP4:
      return kFp4Doubled[code];
    default:
      return static_cast<float>(code);
  }
}

TEST(BlockPack, DecodesToWhatTheRulesSay) {
  std::mt19937 rng(7);
  for (const Form& form : kForms) {
    const EncodingTraits& type = traits(form.kind);
    ASSERT_TRUE(can_pack(form.kind));
    for (int repeat = 0; repeat < 20; ++repeat) {
      BlockCodes block;
      block.d = form.kind == EncodingKind::kMXFP4
                    ? static_cast<uint16_t>(120 + repeat)
                    : f32_to_f16(0.01f * static_cast<float>(1 + repeat));
      block.dmin = f32_to_f16(0.02f);
      for (int j = 0; j < 16; ++j) {
        block.scales[j] =
            static_cast<int16_t>(std::uniform_int_distribution<int>(form.low, form.high)(rng));
        block.mins[j] = static_cast<int16_t>(std::uniform_int_distribution<int>(0, form.high)(rng));
      }
      for (int i = 0; i < type.block_elements; ++i)
        block.codes[i] =
            static_cast<uint8_t>(std::uniform_int_distribution<int>(0, form.levels - 1)(rng));
      std::vector<std::byte> bytes(static_cast<size_t>(type.block_bytes));
      pack_block(form.kind, block, bytes.data());
      std::vector<float> decoded(static_cast<size_t>(type.block_elements));
      type.decode(bytes.data(), 1, decoded.data());
      for (int i = 0; i < type.block_elements; ++i) {
        const float d = form.kind == EncodingKind::kMXFP4 ? e8m0_half(static_cast<uint8_t>(block.d))
                                                          : f16_to_f32(block.d);
        const int j = form.sub_block ? i / form.sub_block : 0;
        const float scale = form.sub_block ? d * block.scales[j] : d;
        const float min = !form.pairs      ? 0
                          : form.sub_block ? f16_to_f32(block.dmin) * block.mins[j]
                                           : -f16_to_f32(block.dmin);
        ASSERT_EQ(decoded[static_cast<size_t>(i)],
                  scale * level_of(form.kind, block.codes[i]) - min)
            << type.name << " weight " << i;
      }
    }
  }
}

TEST(BlockPack, OnlyTypesWithAPacker) {
  EXPECT_FALSE(can_pack(EncodingKind::kF16));
  EXPECT_FALSE(can_pack(EncodingKind::kIQ2_XS));
}

}  // namespace
}  // namespace pome
