#include "encoding/mlc_groups.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "encoding/encoding.h"
#include "tensor/half.h"

namespace pome {
namespace {

struct Group {
  std::array<std::byte, 16> codes{};
  uint16_t scale = 0;
};

int nibble(const Group& group, int i) {
  return std::to_integer<int>(group.codes[static_cast<size_t>(i / 2)]) >> 4 * (i % 2) & 15;
}
float mlc_value(const Group& group, int i) {
  return static_cast<float>(nibble(group, i) - 7) * f16_to_f32(group.scale);
}
float int4_value(const Group& group, int i) {
  return static_cast<float>((nibble(group, i) ^ 8) - 8) * f16_to_f32(group.scale);
}
Group random_group(std::mt19937* random) {
  Group out;
  for (std::byte& byte : out.codes) byte = static_cast<std::byte>((*random)());
  out.scale = f32_to_f16(static_cast<float>((*random)() % 1000) / 500 - 1);
  return out;
}

// One value after another, as the words of MLC are read; a rule of its own.
TEST(MlcGroups, KeepEveryValueInBothDirections) {
  std::mt19937 random(7);
  int turned = 0;
  for (int round = 0; round < 2000; ++round) {
    Group before = random_group(&random);
    // Half of them without the code that has no negative.
    if (round % 2)
      for (std::byte& byte : before.codes)
        byte = static_cast<std::byte>((std::to_integer<int>(byte) & 0x77) | 1);
    Group after = before;
    int4_to_mlc(after.codes, {&after.scale, 1});
    turned += after.scale != before.scale;
    for (int i = 0; i < 32; ++i) ASSERT_EQ(mlc_value(after, i), int4_value(before, i)) << i;
    mlc_to_int4(after.codes, {&after.scale, 1});
    ASSERT_EQ(after.codes, before.codes);
    ASSERT_EQ(after.scale, before.scale);

    Group foreign = random_group(&random), ours = foreign;
    mlc_to_int4(ours.codes, {&ours.scale, 1});
    for (int i = 0; i < 32; ++i) ASSERT_EQ(int4_value(ours, i), mlc_value(foreign, i)) << i;
    int4_to_mlc(ours.codes, {&ours.scale, 1});
    ASSERT_EQ(ours.codes, foreign.codes);
    ASSERT_EQ(ours.scale, foreign.scale);
  }
  EXPECT_GT(turned, 500);
}

// w[i] = (((i * 37) mod 61) - 30) / 32: MLC's rule gives this scale and these words.
TEST(MlcGroups, WordsLieAsMlcPacksThem) {
  const uint32_t words[4] = {0x4906c390, 0x17d4a17c, 0xe5b27d4a, 0xb38e5b28};
  Group group;
  std::memcpy(group.codes.data(), words, sizeof words);
  group.scale = 0x3049;
  const float scale = f16_to_f32(group.scale);
  // The largest magnitude over 7, before it is rounded; ties go away from zero.
  const auto code = [](int i) {
    return static_cast<int>(
        std::lround(static_cast<double>(i * 37 % 61 - 30) / 32 / (30.0 / 32 / 7) + 7));
  };
  for (int i = 0; i < 32; ++i) EXPECT_EQ(nibble(group, i), code(i)) << i;
  // The same numbers through our encoding.
  mlc_to_int4(group.codes, {&group.scale, 1});
  EXPECT_EQ(group.scale, 0x3049);
  std::vector<float> decoded(32);
  const std::span<const std::byte> parts[] = {group.codes,
                                              std::as_bytes(std::span(&group.scale, 1))};
  ASSERT_TRUE(decode_rows(Encoding::int_blocks(4, 32), 1, 32, parts, decoded.data()).ok());
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(decoded[static_cast<size_t>(i)], static_cast<float>(code(i) - 7) * scale) << i;
}

}  // namespace
}  // namespace pome
