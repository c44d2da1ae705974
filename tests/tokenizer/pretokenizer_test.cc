#include "tokenizer/pretokenizer.h"

#include <gtest/gtest.h>

#include <chrono>

namespace pome {
namespace {

std::vector<std::string> cut(const std::string& name, const std::string& text) {
  auto pre = PreTokenizer::create(name, {});
  EXPECT_TRUE(pre.ok());
  std::vector<std::string> out;
  pre->split(text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}
using Pieces = std::vector<std::string>;

TEST(PreTokenizer, Gpt2) {
  EXPECT_EQ(cut("gpt-2", "Hello world's 123abc!?  \n x"),
            (Pieces{"Hello", " world", "'s", " 123", "abc", "!?", "  \n", " x"}));
  EXPECT_EQ(cut("gpt-2", "a   b"), (Pieces{"a", "  ", " b"}));
  EXPECT_EQ(cut("gpt-2", "a\n\nb"), (Pieces{"a", "\n", "\n", "b"}));
  EXPECT_EQ(cut("gpt-2", "trailing  "), (Pieces{"trailing", "  "}));
  EXPECT_EQ(cut("gpt-2", "we'LL we'll"), (Pieces{"we", "'", "LL", " we", "'ll"}));
  EXPECT_EQ(cut("gpt-2", "'"), (Pieces{"'"}));
  EXPECT_EQ(cut("gpt-2", ""), (Pieces{}));
}

TEST(PreTokenizer, Llama3AndQwen2) {
  EXPECT_EQ(cut("llama-bpe", "We'LL pay $1234567\n\n ok"),
            (Pieces{"We", "'LL", " pay", " $", "123", "456", "7", "\n\n", " ok"}));
  EXPECT_EQ(cut("qwen2", "12 a"), (Pieces{"1", "2", " a"}));
  EXPECT_EQ(cut("llama-bpe", "(foo) !!\n\nx"), (Pieces{"(foo", ")", " !!\n\n", "x"}));
  EXPECT_EQ(cut("llama-bpe", "  \n  \n  x"), (Pieces{"  \n  \n", " ", " x"}));
  EXPECT_EQ(cut("llama-bpe", "\tx"), (Pieces{"\tx"}));
}

TEST(PreTokenizer, StagesApplyInsideOfEachOther) {
  EXPECT_EQ(cut("smollm", "ab 12c"), (Pieces{"ab", " ", "1", "2", "c"}));
}

TEST(PreTokenizer, BrokenBytesAreOther) {
  EXPECT_EQ(cut("gpt-2", "a\xFF\xFE z"), (Pieces{"a", "\xFF\xFE", " z"}));
  EXPECT_EQ(cut("llama-bpe", "\xE2\x96"), (Pieces{"\xE2\x96"}));
}

TEST(PreTokenizer, UnknownPatternsAreRefusedByName) {
  for (const std::string& pattern : {std::string("(a+)+$"), std::string("(?<=x)*"),
                                     std::string("\\p{Foo}"), std::string(1 << 20, '(')}) {
    const auto pre = PreTokenizer::create("", {pattern});
    ASSERT_FALSE(pre.ok());
    EXPECT_EQ(pre.status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(pre.status().refusal(), Refusal::kRegex);
    EXPECT_LT(pre.status().message().size(), 300u);
  }
  const auto pre = PreTokenizer::create("no-such-model", {});
  ASSERT_FALSE(pre.ok());
  EXPECT_NE(pre.status().to_string().find("no-such-model"), std::string::npos);
}

TEST(PreTokenizer, PiecesCoverTheTextInLinearTime) {
  const std::string kinds[] = {"\n",       " \n", "A",      "'",    "1",
                               "\xCC\x81", " ",   "\r\n\t", "\xFF", "\xC2"};
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "smollm"}) {
    for (const std::string& kind : kinds) {
      std::string text;
      while (text.size() < (1 << 20)) text += kind;
      const auto start = std::chrono::steady_clock::now();
      size_t total = 0;
      auto pre = PreTokenizer::create(name, {});
      ASSERT_TRUE(pre.ok());
      pre->split(text, [&](std::string_view piece) {
        ASSERT_FALSE(piece.empty());
        total += piece.size();
      });
      EXPECT_EQ(total, text.size());
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 5.0) << name;
    }
  }
}

}  // namespace
}  // namespace pome
