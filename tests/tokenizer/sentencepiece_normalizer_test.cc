#include "tokenizer/sentencepiece_normalizer.h"

#include <gtest/gtest.h>

#include "malformed/sentencepiece_bytes.h"

namespace pome {
namespace {

using Options = normalizer::SentencePiece;

std::string run(const Options& options, std::string_view text) {
  const auto normalizer = SentencePieceNormalizer::create(options);
  EXPECT_TRUE(normalizer.ok()) << normalizer.status().to_string();
  return normalizer.ok() ? normalizer->run(text) : "";
}

TEST(SentencePieceNormalizer, SpacesAndPrefix) {
  Options options;
  EXPECT_EQ(run(options, ""), "");
  EXPECT_EQ(run(options, "  "), "");
  EXPECT_EQ(run(options, "  a  b "), "\u2581a\u2581b");
  EXPECT_EQ(run(options, "a\n b"), "\u2581a\n\u2581b");
  EXPECT_EQ(run(options, "\u2581"), "");  // the mark itself is taken for a space at the end
  EXPECT_EQ(run(options, "a\xff"), "\u2581a\ufffd");
  options.remove_extra_whitespaces = false;
  EXPECT_EQ(run(options, "  a  b "), "\u2581\u2581\u2581a\u2581\u2581b\u2581");
  EXPECT_EQ(run(options, " "), "\u2581\u2581");
  options.add_dummy_prefix = false;
  EXPECT_EQ(run(options, " a"), "\u2581a");
  options.escape_whitespaces = false;
  EXPECT_EQ(run(options, " a  b"), " a  b");
  options.add_dummy_prefix = options.treat_whitespace_as_suffix = true;
  EXPECT_EQ(run(options, "a b"), "a b ");
}

TEST(SentencePieceNormalizer, MapAndUserDefinedSymbols) {
  Options options;
  options.charsmap =
      malformed::charsmap_of({{"\u3000", " "}, {"A", "a"}, {"\u200b", ""}, {"x", " y "}});
  EXPECT_EQ(run(options, "\u3000\u3000AB\u3000\u200b\u3000A"), "\u2581aB\u2581a");
  EXPECT_EQ(run(options, "xx"), "\u2581y\u2581y");
  options.user_defined = {"AA", "A A"};
  EXPECT_EQ(run(options, "AAA A AA"), "\u2581AAA\u2581A\u2581AA");
  EXPECT_EQ(run(options, "bA A"), "\u2581bA\u2581A");
}

TEST(SentencePieceNormalizer, RangesFollow) {
  Options options;
  options.charsmap = malformed::charsmap_of({{"ab", "xyz"}});
  const auto normalizer = SentencePieceNormalizer::create(options);
  ASSERT_TRUE(normalizer.ok());
  std::vector<TextRange> ranges{{1, 2}, {4, 6}};
  EXPECT_EQ(normalizer->run("ab  cd", &ranges), "\u2581xyz\u2581cd");
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].begin, 3u);
  EXPECT_EQ(ranges[0].end, 6u);
  EXPECT_EQ(ranges[1].begin, 9u);
  EXPECT_EQ(ranges[1].end, 11u);
}

TEST(SentencePieceNormalizer, RefusesABrokenMap) {
  Options options;
  options.charsmap = "abc";
  EXPECT_EQ(SentencePieceNormalizer::create(options).status().refusal(), Refusal::kTrunc);
}

}  // namespace
}  // namespace pome
