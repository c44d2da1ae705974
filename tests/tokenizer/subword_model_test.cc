// Unigram and WordPiece, without a tokenizer around them.
#include "tokenizer/subword_model.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "tokenizer/token_trie.h"

namespace pome {
namespace {

using Ids = std::vector<int32_t>;
using Made = Result<std::unique_ptr<SubwordModel>>;

std::vector<bool> all_of(const TokenizerSource& source) {
  return std::vector<bool>(source.tokens.size(), true);
}
Ids encode(const Made& model, std::string_view text) {
  EXPECT_TRUE(model.ok()) << model.status().to_string();
  Ids out;
  SubwordModel::Scratch scratch;
  if (model.ok()) (*model)->encode(text, scratch, out);
  return out;
}

TokenizerSource unigram_source() {
  TokenizerSource source;
  source.tokens = {"<unk>", "a", "b", "ab", "abc", "\u00e9", "cd", "d"};
  source.scores = {0, -2, -2, -3, -8, -4, -1, -3};
  source.unknown = 0;
  source.fuse_unknown = true;
  return source;
}

TEST(Unigram, BestSum) {
  const TokenizerSource source = unigram_source();
  const auto model = make_unigram(source, all_of(source));
  EXPECT_EQ(encode(model, ""), Ids());
  EXPECT_EQ(encode(model, "ab"), (Ids{3}));       // -3 beats -4
  EXPECT_EQ(encode(model, "abcd"), (Ids{3, 6}));  // -4 beats abc d with -11
  EXPECT_EQ(encode(model, "abc"), (Ids{4}));      // -8 beats ab and an unknown c with -21
  EXPECT_EQ(encode(model, "b\u00e9a"), (Ids{2, 5, 1}));
}

TEST(Unigram, EqualSumsGoToTheFirstFound) {
  TokenizerSource source = unigram_source();
  source.scores[3] = -4;
  const auto model = make_unigram(source, all_of(source));
  EXPECT_EQ(encode(model, "ab"), (Ids{3}));  // found from the left end, before b
}

TEST(Unigram, UnknownCharacters) {
  TokenizerSource source = unigram_source();
  EXPECT_EQ(encode(make_unigram(source, all_of(source)), "xyaz"), (Ids{0, 1, 0}));
  EXPECT_EQ(encode(make_unigram(source, all_of(source)), "\u00e8\xff"), (Ids{0}));
  source.fuse_unknown = false;
  EXPECT_EQ(encode(make_unigram(source, all_of(source)), "xyaz"), (Ids{0, 0, 1, 0}));
  source.unknown.reset();
  EXPECT_EQ(encode(make_unigram(source, all_of(source)), "xyaz"), (Ids{1}));
}

TEST(Unigram, ByteTokens) {
  TokenizerSource source = unigram_source();
  for (const char* token : {"<0xC3>", "<0xA8>", "<0x78>"}) {
    source.tokens.push_back(token);
    source.scores.push_back(0);
  }
  source.byte_fallback = true;
  const auto model = make_unigram(source, all_of(source));
  EXPECT_EQ(encode(model, "\u00e8a"), (Ids{8, 9, 1}));
  EXPECT_EQ(encode(model, "x\u00e8"), (Ids{10, 8, 9}));
  EXPECT_EQ(encode(model, "xy"), (Ids{0}));  // one of the bytes has no token
  EXPECT_EQ(encode(model, "<0x78>"), (Ids{10}));
  source.as_sentencepiece = true;
  source.kinds.assign(source.tokens.size(), TokenKind::kNormal);
  for (size_t id = 8; id < 11; ++id) source.kinds[id] = TokenKind::kByte;
  EXPECT_EQ(encode(make_unigram(source, all_of(source)), "<0x78>a"), (Ids{0, 1}));
}

TEST(Unigram, UserDefinedTokensWin) {
  TokenizerSource source = unigram_source();
  source.kinds.assign(source.tokens.size(), TokenKind::kNormal);
  source.kinds[4] = TokenKind::kUserDefined;
  source.as_sentencepiece = true;
  EXPECT_EQ(encode(make_unigram(source, all_of(source)), "abcd"), (Ids{4, 7}));
}

TEST(Unigram, TextMayNotBecomeEveryToken) {
  const TokenizerSource source = unigram_source();
  std::vector<bool> allowed = all_of(source);
  allowed[3] = allowed[6] = false;
  EXPECT_EQ(encode(make_unigram(source, allowed), "abcd"), (Ids{4, 7}));
}

TEST(Unigram, LongTexts) {
  TokenizerSource source = unigram_source();
  source.tokens.push_back(std::string(1024, 'a'));
  source.scores.push_back(-100);
  const auto model = make_unigram(source, all_of(source));
  const auto start = std::chrono::steady_clock::now();
  // Among equal sums the long token that begins first is found first, so the rest stands in front.
  const Ids letters = encode(model, std::string(50'000, 'a'));
  ASSERT_EQ(letters.size(), 50'000u / 1024 + 50'000 % 1024);
  EXPECT_EQ(letters.front(), 1);
  EXPECT_EQ(letters.back(), 8);
  EXPECT_EQ(encode(model, std::string(1'000'000, 'x')), (Ids{0}));
  std::string text;
  Ids expected;
  for (int i = 0; i < 100'000; ++i) {
    text += "abcdx";
    expected.insert(expected.end(), {3, 6, 0});
  }
  EXPECT_EQ(encode(model, text), expected);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 20);
}

TEST(Unigram, Refusals) {
  TokenizerSource source = unigram_source();
  source.tokens.push_back(std::string(1025, 'a'));
  EXPECT_EQ(make_unigram(source, all_of(source)).status().refusal(), Refusal::kRange);
  source.scores.push_back(-1);
  EXPECT_EQ(make_unigram(source, all_of(source)).status().refusal(), Refusal::kLimit);
}

TokenizerSource wordpiece_source() {
  TokenizerSource source;
  source.tokens = {"[UNK]", "un", "##aff", "##able", "##a", "a", "##", "##\u00e9", "able", "u"};
  source.continuing_subword_prefix = "##";
  source.unknown = 0;
  return source;
}

TEST(WordPiece, LongestFirst) {
  const TokenizerSource source = wordpiece_source();
  const auto model = make_wordpiece(source, all_of(source));
  EXPECT_EQ(encode(model, "unaffable"), (Ids{1, 2, 3}));
  EXPECT_EQ(encode(model, "able"), (Ids{8}));
  EXPECT_EQ(encode(model, "a\u00e9a"), (Ids{5, 7, 4}));
  EXPECT_EQ(encode(model, "##a"), (Ids{4}));  // the text of a token is the token
  EXPECT_EQ(encode(model, ""), Ids());
}

TEST(WordPiece, UnknownWords) {
  TokenizerSource source = wordpiece_source();
  EXPECT_EQ(encode(make_wordpiece(source, all_of(source)), "unaffably"), (Ids{0}));
  EXPECT_EQ(encode(make_wordpiece(source, all_of(source)), "xun"), (Ids{0}));
  EXPECT_EQ(encode(make_wordpiece(source, all_of(source)), "un\xff"), (Ids{0}));
  source.max_input_chars_per_word = 4;
  const auto model = make_wordpiece(source, all_of(source));
  EXPECT_EQ(encode(model, "a\u00e9\u00e9a"), (Ids{5, 7, 7, 4}));
  EXPECT_EQ(encode(model, "a\u00e9\u00e9aa"), (Ids{0}));
  source.unknown.reset();
  EXPECT_EQ(encode(make_wordpiece(source, all_of(source)), "xun"), Ids());
}

TEST(TokenTrie, WalksAllPrefixes) {
  const TokenTrie trie({{"a", 1}, {"abc", 2}, {"ab", 3}, {"b", 4}, {"", 5}, {"abc", 6}});
  const auto found = [&](std::string_view text) {
    std::vector<std::pair<size_t, int32_t>> out;
    trie.walk(text, [&](size_t size, int32_t id) { out.emplace_back(size, id); });
    return out;
  };
  using Found = std::vector<std::pair<size_t, int32_t>>;
  EXPECT_EQ(found("abcd"), (Found{{1, 1}, {2, 3}, {3, 6}}));
  EXPECT_EQ(found("b"), (Found{{1, 4}}));
  EXPECT_EQ(found("x"), Found());
  EXPECT_EQ(found(""), Found());
  int count = 0;
  TokenTrie().walk("abc", [&](size_t, int32_t) { ++count; });
  TokenTrie({{"", 1}}).walk("abc", [&](size_t, int32_t) { ++count; });
  EXPECT_EQ(count, 0);
}

}  // namespace
}  // namespace pome
