#include "tokenizer/pattern.h"

#include <gtest/gtest.h>

#include <string>

#include "tokenizer/ggml_pre.h"

namespace pome {
namespace {

std::vector<std::string> matches(const std::string& regex, const std::string& text) {
  auto pattern = Pattern::compile({regex, true});
  EXPECT_TRUE(pattern.ok()) << pattern.status().to_string();
  std::vector<std::string> out;
  std::vector<TextSpan> scratch;
  if (pattern.ok()) {
    pattern->each_match(text, scratch, [&](const TextSpan& match) {
      out.push_back(text.substr(match.begin, match.end - match.begin));
    });
  }
  return out;
}
using Texts = std::vector<std::string>;

TEST(Pattern, CommonOnesNeedNoRegularExpression) {
  for (const char* name :
       {"gpt-2",       "llama-bpe",    "qwen2",          "qwen35",     "gpt-4o",   "tekken",
        "deepseek-v3", "deepseek-llm", "deepseek-coder", "falcon",     "bloom",    "starcoder",
        "smollm",      "command-r",    "seed-coder",     "bailingmoe", "ufakzeka", "minicpm5",
        "youtu",       "laguna",       "viking"}) {
    const auto steps = steps_of_ggml_pre(name);
    ASSERT_TRUE(steps.has_value()) << name;
    for (const PreTokenizerStep& step : steps->pre_tokenizer) {
      const auto* split = std::get_if<pretokenizer::Split>(&step);
      if (!split) continue;
      const auto pattern = Pattern::compile(split->pattern);
      ASSERT_TRUE(pattern.ok()) << name;
      EXPECT_FALSE(pattern->is_regex()) << name << ": " << split->pattern.text;
    }
  }
  for (const char* pattern : {"\\s", "\\p{N}", "\\p{N}+", "[0-9][0-9][0-9]", " {2,}", "\\s+",
                              "[\\r\\n]", "\\S+", "\\d{1,3}"}) {
    const auto compiled = Pattern::compile({pattern, true});
    ASSERT_TRUE(compiled.ok()) << pattern;
    EXPECT_FALSE(compiled->is_regex()) << pattern;
  }
}

TEST(Pattern, ClassesOfCharacters) {
  EXPECT_EQ(matches("\\p{N}{1,3}", "a12345b"), (Texts{"123", "45"}));
  EXPECT_EQ(matches("[0-9][0-9][0-9]", "1234567 12"), (Texts{"123", "456"}));
  EXPECT_EQ(matches(" {2,}", "a b   c  "), (Texts{"   ", "  "}));
  EXPECT_EQ(matches("\\s?\\p{L}+", " ab,cd  e"), (Texts{" ab", "cd", " e"}));
  EXPECT_EQ(matches("[^\\n]+|[\\n]+", "ab\n\nc"), (Texts{"ab", "\n\n", "c"}));
  EXPECT_EQ(matches("\\s+$", " a \n b  "), (Texts{" ", "  "}));
  EXPECT_EQ(matches("[\\p{P}\\$]+", "a$!b."), (Texts{"$!", "."}));
  EXPECT_EQ(matches("[^(\\s|[.,!?])]+", "ab, (cd)"), (Texts{"ab", "cd"}));
  EXPECT_EQ(matches("\\S+", " ab c"), (Texts{"ab", "c"}));
  EXPECT_EQ(matches("[a-c]+",
                    "\xFF"
                    "abz"),
            (Texts{"ab"}));
}

TEST(Pattern, RegularExpressionsAsOnigurumaReadsThem) {
  EXPECT_EQ(matches("\\w+(?=!)", "ab! \u00bd\u24b6! c"), (Texts{"ab", "\u00bd\u24b6"}));
  EXPECT_EQ(matches("(a|b)+x", "abx aax"), (Texts{"abx", "aax"}));
  EXPECT_EQ(matches("^a.", "ab\nac"), (Texts{"ab", "ac"}));  // ^ is the beginning of a line
  EXPECT_EQ(matches("[[a-c]x]+y?", "abxy"), (Texts{"abxy"}));
  EXPECT_EQ(matches("(?=b)", "abab"), (Texts{"", ""}));
  EXPECT_EQ(matches("(a)\\1", "aab"), (Texts{"aa"}));
  for (const char* pattern : {"a{2}+b*?", "[a&&b]x*?", "\\h*?x", "(?m:a)*?x", "(?<=a*)b", "["}) {
    const auto refused = Pattern::compile({pattern, true});
    ASSERT_FALSE(refused.ok()) << pattern;
    EXPECT_EQ(refused.status().refusal(), Refusal::kRegex) << pattern;
  }
  EXPECT_EQ(Pattern::compile({"", true}).status().refusal(), Refusal::kRange);
  EXPECT_EQ(Pattern::compile({std::string(5000, 'a'), false}).status().refusal(), Refusal::kLimit);
}

TEST(WordRule, KnowsWhatItDoesNotKnow) {
  EXPECT_FALSE(parse_word_rule("").has_value());
  EXPECT_FALSE(parse_word_rule("\\p{L}+").has_value());
  EXPECT_FALSE(parse_word_rule(std::string(gpt2_pattern()) + "|x").has_value());
  EXPECT_FALSE(parse_word_rule("x|" + std::string(gpt2_pattern())).has_value());
  EXPECT_TRUE(parse_word_rule(gpt2_pattern()).has_value());
  // A general scanner runs the rules that have none of their own.
  WordRule rule = *parse_word_rule(gpt2_pattern());
  rule.contractions = WordRule::Contractions::kNone;
  const WordScanner scan = scanner_of(rule);
  const TextSpan first = scan(rule, "it's", 0), second = scan(rule, "it's", 2);
  EXPECT_EQ(first.end, 2u);
  EXPECT_EQ(second.end, 3u);
}

}  // namespace
}  // namespace pome
