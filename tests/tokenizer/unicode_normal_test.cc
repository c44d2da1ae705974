#include "tokenizer/unicode_normal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "tokenizer/unicode.h"

namespace pome {
namespace {

std::string nfc(std::string_view text) { return normalize_unicode(text, NormalForm::kNfc); }
std::string nfd(std::string_view text) { return normalize_unicode(text, NormalForm::kNfd); }
std::string nfkc(std::string_view text) { return normalize_unicode(text, NormalForm::kNfkc); }
std::string nfkd(std::string_view text) { return normalize_unicode(text, NormalForm::kNfkd); }

TEST(UnicodeNormal, LettersWithAccents) {
  EXPECT_EQ(nfd("r\u00e9sum\u00e9"), "re\u0301sume\u0301");
  EXPECT_EQ(nfc("re\u0301sume\u0301"), "r\u00e9sum\u00e9");
  EXPECT_EQ(nfd("\u1e69"), "s\u0323\u0307");  // in two steps
  EXPECT_EQ(nfc("s\u0307\u0323"), "\u1e69");  // after ordering
  EXPECT_EQ(nfc("\u1e9b\u0323"), "\u1e9b\u0323");
  EXPECT_EQ(nfkc("\u1e9b\u0323"), "\u1e69");
  EXPECT_EQ(nfkd("\u1e9b\u0323"), "s\u0323\u0307");
  EXPECT_EQ(nfc("a\u0315\u0300\u05ae\u0062"), "\u00e0\u05ae\u0315b");
}

TEST(UnicodeNormal, WhatComposesAndWhatDoesNot) {
  EXPECT_EQ(nfc("\u212b"), "\u00c5");                          // singleton
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");                    // excluded by the script
  EXPECT_EQ(nfc("\u2adc"), "\u2add\u0338");                    // excluded since it came later
  EXPECT_EQ(nfc("\u0344"), "\u0308\u0301");                    // begins with a mark
  EXPECT_EQ(nfc("\u09c7\u09be"), "\u09cb");                    // the second part is no mark
  EXPECT_EQ(nfc("\u09c7\u0334\u09be"), "\u09c7\u0334\u09be");  // blocked
  EXPECT_EQ(nfc("a\u0301\u0301"), "\u00e1\u0301");             // the second one is blocked
  EXPECT_EQ(nfc("\u0301a"), "\u0301a");
  EXPECT_EQ(nfc("a\n\u0301"), "a\n\u0301");
  EXPECT_EQ(nfc(">\u0338"), "\u226f");
}

TEST(UnicodeNormal, Hangul) {
  EXPECT_EQ(nfd("\uac00\uac01\ud7a3"), "\u1100\u1161\u1100\u1161\u11a8\u1112\u1175\u11c2");
  EXPECT_EQ(nfc("\u1100\u1161\u1100\u1161\u11a8\u1112\u1175\u11c2"), "\uac00\uac01\ud7a3");
  EXPECT_EQ(nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\uac01\u11a8"), "\uac01\u11a8");
  EXPECT_EQ(nfc("\uac00\u11a7"), "\uac00\u11a7");  // the base of the trailing ones is none itself
  EXPECT_EQ(nfkc("\u3131"), "\u1100");
}

TEST(UnicodeNormal, CompatibleForms) {
  EXPECT_EQ(nfkc("\ufb01\u2460\uff21\u00bd\u3000"), "fi1A1\u20442 ");
  EXPECT_EQ(nfkc("\U0001d400\U0001d7ff"), "A9");
  EXPECT_EQ(nfkd("\ufdfa"),
            "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647 \u0639\u0644\u064a\u0647 "
            "\u0648\u0633\u0644\u0645");
  EXPECT_EQ(nfkd("\u01c4"), "DZ\u030c");
  EXPECT_EQ(nfc("\ufb01\u2460"), "\ufb01\u2460");
  EXPECT_EQ(nfkc("\u1fee"), " \u0308\u0301");  // a canonical part with a compatible form
}

TEST(UnicodeNormal, LeavesAlone) {
  EXPECT_EQ(nfkc("\u32ff"), "\u32ff");  // of Unicode 12.1
  for (const char* text : {"", "plain", "\u4f60\u597d", "\xff\xc3", "e\xcc", "e\xff\u0301"}) {
    EXPECT_EQ(nfc(text), text);
  }
  EXPECT_EQ(nfd("\xff\u00e9\xff"),
            "\xff"
            "e\u0301\xff");
}

TEST(UnicodeNormal, MarksAreOrderedWithinTheirClass) {
  std::string text = "a", expected = "a";
  for (int i = 0; i < 40; ++i) text += i % 2 ? "\u0316" : i % 4 ? "\u0300" : "\u0302";
  for (int i = 1; i < 40; i += 2) expected += "\u0316";
  for (int i = 0; i < 40; i += 2) expected += i % 4 ? "\u0300" : "\u0302";
  EXPECT_EQ(nfd(text), expected);
}

TEST(UnicodeNormal, TimeIsLinear) {
  std::string marks = "a", syllables, letters;
  while (marks.size() < 1'000'000) marks += "\u0301\u0323\u0345\u0327";
  while (syllables.size() < 1'000'000) syllables += "\u1112\u1175\u11c2";
  while (letters.size() < 1'000'000) letters += "e\u0301\uff21";
  const auto start = std::chrono::steady_clock::now();
  for (const std::string* text : {&marks, &syllables, &letters}) {
    const std::string decomposed = nfkd(*text);
    EXPECT_EQ(nfkd(decomposed), decomposed);
    EXPECT_EQ(nfkc(nfkc(*text)), nfkc(decomposed));
    EXPECT_FALSE(bert_strip_accents(bert_clean(bert_space_ideographs(lowercase(*text)))).empty());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 10);  // about 0.3 without a sanitizer
}

TEST(UnicodeNormal, Lowercase) {
  EXPECT_EQ(lowercase("ABC \u00c9\u0130\u03a3\u1e9e"), "abc \u00e9i\u0307\u03c3\u00df");
  EXPECT_EQ(lowercase("\u039f\u03a3"), "\u03bf\u03c3");  // no other sigma at the end of a word
  EXPECT_EQ(lowercase("\xff"
                      "A\xc3"),
            "\xff"
            "a\xc3");
}

TEST(UnicodeNormal, MarksAndAccents) {
  EXPECT_EQ(remove_marks("e\u0301\u00e9\u0903\u20dd"), "e\u00e9");
  EXPECT_EQ(bert_strip_accents("\u00e9\u0903\uac00"), "e\u0903\u1100\u1161");
  EXPECT_EQ(combining_class(U'a'), 0);
  EXPECT_EQ(combining_class(0x301), 230);
  EXPECT_EQ(combining_class(0x110000), 0);
}

TEST(UnicodeNormal, TextOfBert) {
  EXPECT_EQ(bert_clean(std::string_view("a\0b\u0007\tc\r\n\u200b\ufffd\u3000\ue000\xff"
                                        "d",
                                        23)),
            "ab c   d");
  EXPECT_EQ(bert_space_ideographs("a\u4e00\u4e01b\u3042"), "a \u4e00  \u4e01 b\u3042");
  for (const char32_t point : std::u32string_view(U"!$`~\u3001\u00bf\u166d")) {
    EXPECT_TRUE(is_bert_punctuation(point)) << static_cast<uint32_t>(point);
  }
  for (const char32_t point : std::u32string_view(U"a0 \x7f\u20ac\u2e43")) {
    EXPECT_FALSE(is_bert_punctuation(point)) << static_cast<uint32_t>(point);
  }
}

}  // namespace
}  // namespace pome
