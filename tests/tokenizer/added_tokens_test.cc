#include "tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>

namespace pome {
namespace {

bool touches(size_t begin, size_t end, const std::vector<TextRange>& closed) {
  for (const TextRange& range : closed) {
    if (begin < range.end && end > range.begin) return true;
  }
  return false;
}

TEST(TokenMatcher, AgreesWithTryingEveryPosition) {
  std::mt19937 random(5);
  const auto random_text = [&](size_t size) {
    std::string out;
    for (size_t i = 0; i < size; ++i) out.push_back(static_cast<char>('a' + random() % 3));
    return out;
  };
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string> texts;
    for (size_t i = 0; i < 1 + random() % 8; ++i) texts.push_back(random_text(random() % 6));
    const std::string text = random_text(random() % 60);
    std::vector<TextRange> closed;
    for (size_t at = random() % 20; at < text.size(); at += 1 + random() % 20) {
      const size_t end = std::min(text.size(), at + random() % 5);
      if (end > at) closed.push_back({at, end});
      at = end;
    }
    const TokenMatcher matcher(std::vector<std::string_view>(texts.begin(), texts.end()));
    const auto matches = matcher.longest_backwards(text, closed);
    size_t next = 0;
    for (size_t at = text.size(); at-- > 0;) {
      size_t best = texts.size();
      for (size_t i = 0; i < texts.size(); ++i) {
        if (texts[i].empty() || text.compare(at, texts[i].size(), texts[i]) != 0) continue;
        if (touches(at, at + texts[i].size(), closed)) continue;
        if (best == texts.size() || texts[i].size() > texts[best].size()) best = i;
      }
      if (best == texts.size()) continue;
      ASSERT_LT(next, matches.size());
      EXPECT_EQ(matches[next].begin, at);
      EXPECT_EQ(matches[next].end, at + texts[best].size());
      EXPECT_EQ(matches[next].number, best);
      ++next;
    }
    ASSERT_EQ(next, matches.size());
  }
}

TEST(TokenMatcher, LinearWhateverTheTokensAre) {
  // Prefixes that overlap everywhere and one long token that almost matches at every position.
  std::vector<std::string> texts;
  for (size_t i = 1; i < 1000; ++i) texts.push_back(std::string(i, 'a'));
  texts.push_back(std::string(100000, 'a') + "b");
  texts.push_back("b" + std::string(100000, 'a'));
  const TokenMatcher matcher(std::vector<std::string_view>(texts.begin(), texts.end()));
  const std::string text(1 << 20, 'a');
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(matcher.longest_backwards(text).size(), text.size());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 5.0);
}

}  // namespace
}  // namespace pome
