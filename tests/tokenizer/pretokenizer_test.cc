#include "tokenizer/pretokenizer.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tokenizer/ggml_pre.h"

namespace pome {
namespace {

using Pieces = std::vector<std::string>;

Pieces cut(const std::vector<PreTokenizerStep>& steps, const std::string& text,
           bool at_start = true) {
  const auto pre = PreTokenizer::create(steps, true);
  EXPECT_TRUE(pre.ok()) << pre.status().to_string();
  Pieces out;
  PreTokenizer::Scratch scratch;
  if (pre.ok()) {
    pre->split(text, at_start, scratch, [&](std::string_view piece) { out.emplace_back(piece); });
  }
  return out;
}
Pieces cut(const std::string& name, const std::string& text) {
  const auto steps = steps_of_ggml_pre(name);
  EXPECT_TRUE(steps.has_value()) << name;
  return cut(steps->pre_tokenizer, text);
}

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

TEST(PreTokenizer, CasedWords) {
  EXPECT_EQ(cut("gpt-4o", "HelloWorld don't ABCdef"),
            (Pieces{"Hello", "World", " don't", " ABCdef"}));
  EXPECT_EQ(cut("gpt-4o", "\u65e5AB \u65e5"), (Pieces{"\u65e5", "AB", " \u65e5"}));
  EXPECT_EQ(cut("gpt-4o", "a/b //\n/x"), (Pieces{"a", "/b", " //\n/", "x"}));
  EXPECT_EQ(cut("tekken", "it's 12"), (Pieces{"it", "'s", " ", "1", "2"}));
}

TEST(PreTokenizer, DeepSeekLeavesGaps) {
  EXPECT_EQ(cut("deepseek-v3", "a1234 \u4f60\u597d!x ++\n"),
            (Pieces{"a", "123", "4", " ", "\u4f60\u597d", "!x", " ++\n"}));
  EXPECT_EQ(cut("deepseek-v3", "a\x01\x02z"), (Pieces{"a", "\x01", "\x02z"}));
  EXPECT_EQ(cut("deepseek-llm", "Hi, you\r\n12"), (Pieces{"Hi", ",", " you", "\r", "\n", "12"}));
}

TEST(PreTokenizer, StagesApplyInsideOfEachOther) {
  EXPECT_EQ(cut("smollm", "ab 12c"), (Pieces{"ab", " ", "1", "2", "c"}));
  EXPECT_EQ(cut("falcon", "ab 12345!!c"),
            (Pieces{"ab", "\u0120", "123", "45", "!!", "c"}));  // the alphabet: a step follows it
}

TEST(PreTokenizer, BrokenBytesAreOther) {
  EXPECT_EQ(cut("gpt-2", "a\xFF\xFE z"), (Pieces{"a", "\xFF\xFE", " z"}));
  EXPECT_EQ(cut("llama-bpe", "\xE2\x96"), (Pieces{"\xE2\x96"}));
}

TEST(PreTokenizer, SplitBehaviors) {
  const auto split = [](SplitBehavior behavior, bool invert, const std::string& text) {
    return cut({pretokenizer::Split{{"-", false}, behavior, invert}}, text);
  };
  const std::string text = "the-final--countdown-";
  EXPECT_EQ(split(SplitBehavior::kRemoved, false, text), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved, true, text), (Pieces{"-", "-", "-", "-"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated, false, text),
            (Pieces{"the", "-", "final", "-", "-", "countdown", "-"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious, false, text),
            (Pieces{"the-", "final-", "-", "countdown-"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext, false, text),
            (Pieces{"the", "-final", "-", "-countdown", "-"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous, false, text),
            (Pieces{"the", "-", "final", "--", "countdown", "-"}));
}

TEST(PreTokenizer, WordsAndSpaces) {
  EXPECT_EQ(cut({pretokenizer::Whitespace{}}, " Hey, you_2! "), (Pieces{"Hey", ",", "you_2", "!"}));
  EXPECT_EQ(cut({pretokenizer::WhitespaceSplit{}}, " Hey,\u00a0you "), (Pieces{"Hey,", "you"}));
  EXPECT_EQ(cut({pretokenizer::Bert{}}, "Hey, you? "), (Pieces{"Hey", ",", "you", "?"}));
  EXPECT_EQ(cut({pretokenizer::CharDelimiter{"-"}}, "a-b--c"), (Pieces{"a", "b", "c"}));
  EXPECT_EQ(cut({pretokenizer::FixedLength{2}}, "a\u00e9cde"), (Pieces{"a\u00e9", "cd", "e"}));
  EXPECT_EQ(cut({pretokenizer::UnicodeScripts{}}, "ab \u65e5\u672c\u30fc\u306ez"),
            (Pieces{"ab ", "\u65e5\u672c\u30fc\u306e", "z"}));
}

TEST(PreTokenizer, Metaspace) {
  const auto metaspace = [](PrependScheme scheme, bool split) {
    return std::vector<PreTokenizerStep>{pretokenizer::Metaspace{"\u2581", scheme, split}};
  };
  EXPECT_EQ(cut(metaspace(PrependScheme::kAlways, true), "a  b"),
            (Pieces{"\u2581a", "\u2581", "\u2581b"}));
  EXPECT_EQ(cut(metaspace(PrependScheme::kAlways, false), "a b"), (Pieces{"\u2581a\u2581b"}));
  EXPECT_EQ(cut(metaspace(PrependScheme::kAlways, false), " a"), (Pieces{"\u2581a"}));
  EXPECT_EQ(cut(metaspace(PrependScheme::kNever, true), "a b"), (Pieces{"a", "\u2581b"}));
  EXPECT_EQ(cut(metaspace(PrependScheme::kFirst, true), "a"), (Pieces{"\u2581a"}));
  EXPECT_EQ(cut(metaspace(PrependScheme::kFirst, true), "a", false), (Pieces{"a"}));
  // Only the first piece stands at the start.
  EXPECT_EQ(
      cut({pretokenizer::WhitespaceSplit{}, metaspace(PrependScheme::kFirst, true)[0]}, "a b"),
      (Pieces{"\u2581a", "b"}));
}

TEST(PreTokenizer, EveryNameOfGgufBuilds) {
  EXPECT_FALSE(steps_of_ggml_pre("no-such-model").has_value());
  for (const char* name :
       {"kimi-k2", "superbpe", "tiny_aya", "jais-2", "exaone-moe", "youtu", "chameleon", "default",
        "bloom", "viking", "spark2_5", "laguna", "minicpm5", "seed-coder", "bailingmoe", "ufakzeka",
        "qwen35", "gemma4"}) {
    EXPECT_FALSE(cut(name, "It's 12345 \u65e5\u672c\u8a9e  test, OK?\n\n").empty()) << name;
  }
  EXPECT_EQ(cut("superbpe", "a12345"), (Pieces{"a", "12", "345"}));
  EXPECT_EQ(cut("kimi-k2", "Ab\u65e5\u672cC"), (Pieces{"Ab", "\u65e5\u672c", "C"}));
}

TEST(PreTokenizer, PatternsThatCannotBeUsedAreRefusedByName) {
  for (const std::string& pattern :
       {std::string("(a"), std::string("(?<=x)*+*"), std::string("\\p{Foo}"),
        std::string("[a-z&&[b]]"), std::string(1 << 20, '(')}) {
    const auto pre = PreTokenizer::create(
        {pretokenizer::Split{{pattern, true}, SplitBehavior::kIsolated, false}}, true);
    ASSERT_FALSE(pre.ok());
    EXPECT_EQ(pre.status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(pre.status().refusal(), Refusal::kRegex);
    EXPECT_EQ(pre.status().where(), "pre_tokenizer[0]");
    EXPECT_LT(pre.status().message().size(), 400u);
  }
}

TEST(PreTokenizer, PiecesCoverTheTextInLinearTime) {
  const std::string kinds[] = {"\n", " \n",    "A",    "'",    "1",       "\xCC\x81",
                               " ",  "\r\n\t", "\xFF", "\xC2", "\u65e5A", "\u65e5\u672c",
                               "/",  "!a"};
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "smollm", "gpt-4o", "tekken", "qwen35",
                           "deepseek-v3", "deepseek-llm", "deepseek-coder", "bloom", "default"}) {
    const auto steps = steps_of_ggml_pre(name);
    ASSERT_TRUE(steps.has_value());
    const auto pre = PreTokenizer::create(steps->pre_tokenizer, true);
    ASSERT_TRUE(pre.ok()) << pre.status().to_string();
    for (const std::string& kind : kinds) {
      std::string text;
      while (text.size() < (1 << 20)) text += kind;
      const auto start = std::chrono::steady_clock::now();
      size_t total = 0;
      PreTokenizer::Scratch scratch;
      pre->split(text, true, scratch, [&](std::string_view piece) {
        ASSERT_FALSE(piece.empty());
        total += piece.size();
      });
      EXPECT_GE(total, text.size());
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 5.0) << name << " " << testing::PrintToString(kind);
    }
  }
}

}  // namespace
}  // namespace pome
