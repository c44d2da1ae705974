#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

#include "base/byte_source.h"

namespace pome {
namespace {

TEST(Unicode, Categories) {
  EXPECT_EQ(category_of('A'), Category::kLu);
  EXPECT_EQ(category_of('z'), Category::kLl);
  EXPECT_EQ(category_of('5'), Category::kNd);
  EXPECT_EQ(category_of('_'), Category::kPc);
  EXPECT_EQ(category_of('$'), Category::kSc);
  EXPECT_EQ(category_of(0x4F60), Category::kLo);  // inside of a range given by First and Last
  EXPECT_EQ(category_of(0x9FFF), Category::kLo);  // its last
  EXPECT_EQ(category_of(0x0301), Category::kMn);
  EXPECT_EQ(category_of(0x216B), Category::kNl);
  EXPECT_EQ(category_of(0x00BD), Category::kNo);
  EXPECT_EQ(category_of(0x1F600), Category::kSo);
  EXPECT_EQ(category_of(0x0378), Category::kCn);
  EXPECT_EQ(category_of(0x10FFFF), Category::kCn);
  EXPECT_EQ(category_of(0xFFFFFFFF), Category::kCn);
}

TEST(Unicode, WhiteSpaceAndWords) {
  for (const char32_t point :
       {0x09, 0x0D, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x200A, 0x2028, 0x3000}) {
    EXPECT_TRUE(is_white_space(point)) << static_cast<uint32_t>(point);
  }
  for (const char32_t point : {0x08, 0x0E, 0x1C, 0x180E, 0x200B, 0x2060, 0xFEFF}) {
    EXPECT_FALSE(is_white_space(point)) << static_cast<uint32_t>(point);
  }
  EXPECT_TRUE(is_word_character('_'));
  EXPECT_TRUE(is_word_character(0x0301));
  EXPECT_FALSE(is_word_character('-'));
}

TEST(Unicode, CaseMapping) {
  EXPECT_EQ(to_lower('Q'), U'q');
  EXPECT_EQ(to_upper('q'), U'Q');
  EXPECT_EQ(to_lower(0x00C9), 0x00E9u);
  EXPECT_EQ(to_upper(0x00E9), 0x00C9u);
  EXPECT_EQ(to_lower(0x0100), 0x0101u);  // alternating upper and lower
  EXPECT_EQ(to_lower(0x0101), 0x0101u);
  EXPECT_EQ(to_upper(0x0451), 0x0401u);
  EXPECT_EQ(to_upper(0x00DF), 0x00DFu);  // no simple mapping
  EXPECT_EQ(to_upper(0x4F60), 0x4F60u);
}

TEST(Unicode, EveryCharacterSurvivesUtf8) {
  for (char32_t point = 0; point <= 0x10FFFF; point += point < 0x3000 ? 1 : 257) {
    if (point >= 0xD800 && point <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, point);
    const Rune rune = decode_rune(text, 0);
    ASSERT_TRUE(rune.valid);
    ASSERT_EQ(rune.point, point);
    ASSERT_EQ(rune.size, text.size());
    const Rune back = decode_rune_before("x" + text, text.size() + 1);
    ASSERT_EQ(back.point, point);
    ASSERT_TRUE(is_valid_utf8(text));
  }
}

TEST(Unicode, BrokenUtf8BecomesOneMarkForEachMaximalPart) {
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("a\xFFz"), "a" + mark + "z");
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80"), mark + mark);             // overlong
  EXPECT_EQ(replace_invalid_utf8("\xE2\x96"), mark);                    // cut off
  EXPECT_EQ(replace_invalid_utf8("\xE2\x96z"), mark + "z");             // interrupted
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), mark + mark + mark);  // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98\x80"), "\xF0\x9F\x98\x80");
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), mark + mark + mark + mark);
}

TEST(Unicode, CompletePrefix) {
  EXPECT_EQ(complete_prefix(""), 0u);
  EXPECT_EQ(complete_prefix("ab"), 2u);
  EXPECT_EQ(complete_prefix("a\xE2"), 1u);
  EXPECT_EQ(complete_prefix("a\xE2\x96"), 1u);
  EXPECT_EQ(complete_prefix("a\xE2\x96\x81"), 4u);
  EXPECT_EQ(complete_prefix("a\xF0\x9F\x98"), 1u);
  EXPECT_EQ(complete_prefix("a\xFF"), 2u);     // can never be completed
  EXPECT_EQ(complete_prefix("a\x80"), 2u);     // neither
  EXPECT_EQ(complete_prefix("\xED\xA0"), 2u);  // a surrogate: neither
}

}  // namespace
}  // namespace pome
