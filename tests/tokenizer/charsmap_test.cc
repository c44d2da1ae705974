#include "tokenizer/charsmap.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>

#include "malformed/sentencepiece_bytes.h"
#include "tokenizer/grapheme.h"

namespace pome {
namespace {

using malformed::charsmap_of;

CharsMap parse(const std::string& bytes) {
  auto map = CharsMap::parse(bytes);
  EXPECT_TRUE(map.ok()) << map.status().to_string();
  return map.ok() ? *std::move(map) : CharsMap();
}

const std::map<std::string, std::string> kSome = {
    {"A", "a"},     {"\uff21", "A"},  {"e\u0301", "\u00e9"},      {"\u3000", " "},
    {"\u200b", ""}, {"\ufb01", "fi"}, {"\u30ab\u3099", "\u30ac"}, {"\u30ab", "\u30ab"}};

TEST(CharsMap, LongestKeyAtEachPlace) {
  const CharsMap map = parse(charsmap_of(kSome));
  EXPECT_EQ(map.replace_longest("xA\uff21e\u0301"), "xaA\u00e9");
  EXPECT_EQ(map.replace_longest("\u30ab\u3099\u30ab"), "\u30ac\u30ab");
  EXPECT_EQ(map.replace_longest("\u200b\u3000\ufb01"), " fi");
  EXPECT_EQ(map.replace_longest("e\xff\xcc"), "e\ufffd\ufffd");
  EXPECT_EQ(map.replace_longest(std::string_view("\0A", 2)), std::string("\0a", 2));
  EXPECT_EQ(map.longest("\u30ab\u3099")->size, 6u);
  EXPECT_EQ(map.shortest("\u30ab\u3099")->size, 3u);
  EXPECT_FALSE(map.longest("e").has_value());
}

// The peculiarities of the library: a whole cluster goes for a key that it merely begins with, and
// clusters of six bytes and more are looked at by characters.
TEST(CharsMap, ByGraphemes) {
  const CharsMap map = parse(charsmap_of(kSome));
  EXPECT_EQ(map.replace_graphemes("xA\uff21e\u0301"), "xaA\u00e9");
  EXPECT_EQ(map.replace_graphemes("A\u0301"), "a");
  EXPECT_EQ(map.replace_graphemes("A\u0301\u0301\u0301"), "a\u0301\u0301\u0301");
  EXPECT_EQ(map.replace_graphemes("\u30ab\u3099"), "\u30ab\u3099");
  EXPECT_EQ(map.replace_graphemes("e\u0301\u0302"), "\u00e9");
}

TEST(CharsMap, EmptyMapKeepsText) {
  EXPECT_EQ(CharsMap().replace_graphemes("a\u0301"), "a\u0301");
  EXPECT_EQ(CharsMap().replace_longest("a\u0301"), "a\u0301");
  EXPECT_TRUE(parse("").empty());
}

TEST(CharsMap, Refusals) {
  using malformed::le32;
  const std::vector<uint32_t> units = malformed::trie_units({{"A", 0}, {"BC", 2}});
  const auto with = [&](size_t i, uint32_t unit) {
    std::vector<uint32_t> changed = units;
    changed.at(i) = unit;
    return changed;
  };
  const std::string blob("x\0y\0", 4);
  size_t value = 0, letter = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    if (units[i] == 1u << 31) value = i;
    if ((units[i] & 0x800000FF) == 'B') letter = i;
  }
  const std::pair<std::string, Refusal> rows[] = {
      {"abc", Refusal::kTrunc},
      {le32(8) + le32(0), Refusal::kTrunc},
      {le32(0), Refusal::kRange},
      {le32(3) + "abc", Refusal::kRange},
      {charsmap_of(units, "x"), Refusal::kTrunc},
      {charsmap_of(units, std::string("\xff\0\0\0", 4)), Refusal::kUtf8},
      {charsmap_of(units, std::string("x\0", 2)), Refusal::kBounds},
      {charsmap_of(with(value, 1u << 31 | 1), std::string("\u00e9\0y\0", 5)), Refusal::kUtf8},
      {charsmap_of(with(value, 1u << 31 | 9), blob), Refusal::kBounds},
      {charsmap_of(with(letter, units[letter] | 1u << 8 | 0x3FFF << 10), blob), Refusal::kBounds},
      // The letter leads to the base that it stands at itself.
      {charsmap_of(with(letter, 'B' | 'B' << 10), blob), Refusal::kRange},
      {charsmap_of(malformed::trie_units({{std::string(300, 'k'), 0}}), blob), Refusal::kLimit}};
  EXPECT_TRUE(CharsMap::parse(charsmap_of(units, blob)).ok());
  for (const auto& [bytes, refusal] : rows) {
    const auto map = CharsMap::parse(bytes);
    EXPECT_EQ(map.status().refusal(), refusal) << map.status().to_string();
  }
}

TEST(CharsMap, TimeIsLinear) {
  const CharsMap map = parse(charsmap_of({{std::string(200, 'a') + "b", "c"}, {"\u0301", "x"}}));
  const std::string letters(200'000, 'a');
  std::string marks = "a";
  while (marks.size() < 1'000'000) marks += "\u0301";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(map.replace_longest(letters), letters);
  EXPECT_EQ(map.replace_graphemes(letters), letters);
  EXPECT_EQ(map.replace_graphemes(marks).size(), 1 + (marks.size() - 1) / 2);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 10);
}

TEST(Grapheme, Clusters) {
  const auto clusters = [](std::string_view text) {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size();) {
      const size_t end = next_grapheme(text, at);
      out.emplace_back(text.substr(at, end - at));
      at = end;
    }
    return out;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(clusters("ab\r\n\n\r"), (Texts{"a", "b", "\r\n", "\n", "\r"}));
  EXPECT_EQ(clusters("e\u0301\u0301x\n\u0301"), (Texts{"e\u0301\u0301", "x", "\n", "\u0301"}));
  EXPECT_EQ(clusters("\u1100\u1161\u11a8\u1100\uac00\u11a8"),
            (Texts{"\u1100\u1161\u11a8", "\u1100\uac00\u11a8"}));
  EXPECT_EQ(clusters("\u0600ab\u0600\n"), (Texts{"\u0600a", "b", "\u0600", "\n"}));
  EXPECT_EQ(clusters("a\u200db\u0903"), (Texts{"a\u200d", "b\u0903"}));
  EXPECT_EQ(clusters("a\xff\u0301"), (Texts{"a", "\xff", "\u0301"}));
}

}  // namespace
}  // namespace pome
