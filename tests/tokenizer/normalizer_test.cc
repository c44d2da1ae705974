#include "tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

using Ranges = std::vector<TextRange>;

NormalizerChain chain(const std::vector<NormalizerStep>& steps) {
  auto out = NormalizerChain::create(steps);
  EXPECT_TRUE(out.ok()) << out.status().to_string();
  return out.ok() ? *std::move(out) : NormalizerChain();
}
std::string run(const std::vector<NormalizerStep>& steps, const std::string& text) {
  return chain(steps).run(text);
}

TEST(Normalizer, Steps) {
  using namespace normalizer;  // NOLINT: the steps
  EXPECT_EQ(run({UnicodeForm{Form::kNfd}}, "\u00e9"), "e\u0301");
  EXPECT_EQ(run({UnicodeForm{Form::kNfkc}}, "e\u0301\ufb01"), "\u00e9fi");
  EXPECT_EQ(run({Lowercase{}}, "A\u0130"), "ai\u0307");
  EXPECT_EQ(run({Strip{true, false}}, " \u00a0a "), "a ");
  EXPECT_EQ(run({Strip{false, true}}, " a\n"), " a");
  EXPECT_EQ(run({Nmt{}}, "a\x01\tb\u200b"), "a b ");
  EXPECT_EQ(run({Prepend{"_"}}, "a"), "_a");
  EXPECT_EQ(run({Prepend{"_"}}, ""), "");
  EXPECT_EQ(run({Replace{{" ", false}, "\u2581"}}, "a b "), "a\u2581b\u2581");
  EXPECT_EQ(run({Replace{{"ab", false}, ""}}, "xabaabb"), "xab");
  EXPECT_EQ(run({Replace{{" {2,}", true}, " "}}, "a   b c"), "a b c");
  EXPECT_EQ(run({Bert{}}, "\u00c9\u4f60x"), "e \u4f60 x");
  EXPECT_EQ(run({ByteLevel{}}, "a \u00e9"), "a\u0120\u00c3\u00a9");
  EXPECT_EQ(run({}, "a"), "a");
}

// Random texts in which template and user text meet in every way.
std::string random_text(std::mt19937& random) {
  const std::string parts[] = {"a",    "B",      " ",      "  ",          "\n",
                               "\r\n", "<x>",    "\u0301", "\u00e9",      "\u4f60",
                               "e",    "\ufb01", "\xFF",   "\u1112\u1161"};
  std::string out;
  for (size_t i = random() % 12; i-- > 0;) out += parts[random() % std::size(parts)];
  return out;
}

TEST(Normalizer, TrackingRangesDoesNotChangeTheText) {
  using namespace normalizer;  // NOLINT: the steps
  const std::vector<NormalizerStep> all[] = {
      {UnicodeForm{Form::kNfc}},
      {UnicodeForm{Form::kNfkd}},
      {Lowercase{}},
      {StripAccents{}},
      {Strip{}},
      {Nmt{}},
      {Prepend{"\u2581"}},
      {Replace{{" ", false}, "\u2581"}},
      {Replace{{"\\s+", true}, " "}},
      {Bert{}},
      {ByteLevel{}},
      {Prepend{" "}, UnicodeForm{Form::kNfc}, Lowercase{}, Replace{{" ", false}, "\u2581"}},
      {SentencePiece{}}};
  std::mt19937 random(5);
  for (const auto& steps : all) {
    const NormalizerChain normalizer = chain(steps);
    for (int round = 0; round < 400; ++round) {
      const std::string text = random_text(random);
      Ranges ranges;
      for (size_t at = 0; at < text.size();) {
        const size_t begin = at + random() % 4, end = begin + 1 + random() % 5;
        if (end > text.size()) break;
        ranges.push_back({begin, end});
        at = end + 1;
      }
      const std::string plain = normalizer.run(text);
      ASSERT_EQ(normalizer.run(text, ranges), plain)
          << steps[0].index() << " " << testing::PrintToString(text);
      size_t last = 0;
      for (const TextRange& range : ranges) {
        ASSERT_GE(range.begin, last);
        ASSERT_LT(range.begin, range.end);
        ASSERT_LE(range.end, plain.size());
        last = range.end;
      }
    }
  }
}

TEST(Normalizer, RangesFollowTheirText) {
  using namespace normalizer;  // NOLINT: the steps
  const auto mapped = [](const std::vector<NormalizerStep>& steps, const std::string& text,
                         Ranges ranges) {
    const std::string out = chain(steps).run(text, ranges);
    std::string inside;
    for (const TextRange& range : ranges) {
      inside += "[" + out.substr(range.begin, range.end - range.begin) + "]";
    }
    return inside;
  };
  EXPECT_EQ(mapped({Replace{{" ", false}, "\u2581"}}, "a b c", {{2, 3}}), "[b]");
  EXPECT_EQ(mapped({Prepend{"__"}}, "abc", {{0, 1}}), "[a]");
  EXPECT_EQ(mapped({Strip{}}, "  ab  ", {{0, 3}}), "[a]");
  EXPECT_EQ(mapped({Lowercase{}}, "<S>\u00c9X<S>", {{3, 6}}), "[\u00e9x]");
  EXPECT_EQ(mapped({UnicodeForm{Form::kNfkc}}, ">\ufb01<", {{1, 4}}), "[fi]");
  // A mark of the user that joins the template's letter takes the letter with it, and more than it
  // where the place of neither is known exactly.
  EXPECT_EQ(mapped({UnicodeForm{Form::kNfc}}, "ae\u0301b", {{2, 4}}).substr(0, 3), "[\u00e9");
}

// Special tokens that are `normalized` are found in normalised text, but not where a user wrote.
TEST(Normalizer, UserTextNeverBecomesANormalizedSpecialToken) {
  using namespace normalizer;  // NOLINT: the steps
  const std::vector<NormalizerStep> all[] = {{Lowercase{}},
                                             {UnicodeForm{Form::kNfkc}, Lowercase{}},
                                             {Bert{}},
                                             {Replace{{"\\s+", true}, ""}, Lowercase{}},
                                             {Nmt{}, Lowercase{}}};
  for (const auto& steps : all) {
    TokenizerSource source;
    source.model = TokenizerSource::Model::kBpe;
    source.tokens = {"<x>", "?"};
    for (char c = ' '; c < 127; ++c) {
      if (c != '?') source.tokens.emplace_back(1, c);
    }
    source.unknown = 1;
    AddedToken token;
    token.content = "<x>";
    token.special = token.normalized = true;
    source.added = {token};
    source.normalizer = steps;
    const TokenizerPtr tokenizer = build(Result<TokenizerSource>(source));
    ASSERT_NE(tokenizer, nullptr);
    const std::string text = "<X>a<X>";
    const auto count = [&](const Ids& ids) { return std::count(ids.begin(), ids.end(), 0); };
    EXPECT_EQ(count(tokenizer->encode(text)), 2);
    EXPECT_EQ(count(tokenizer->encode(text, {.parse_special = false})), 0);
    for (size_t begin = 0; begin < text.size(); ++begin) {
      for (size_t end = begin + 1; end <= text.size(); ++end) {
        const TextRange user[] = {{begin, end}};
        const Ids ids = tokenizer->encode_with_user_text(text, user);
        const int left = (begin >= 3) + (end <= 4);
        EXPECT_EQ(count(ids), left) << steps.size() << ": " << begin << " " << end;
      }
    }
  }
}

}  // namespace
}  // namespace pome
