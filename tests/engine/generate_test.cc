#include "engine/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "engine/scripted_runner.h"

namespace pome {
namespace {

using test::ScriptedRunner;

class GenerateTest : public ::testing::Test {
 protected:
  static std::shared_ptr<const Tokenizer> tokenizer() { return test::tales_tokenizer(); }
  static std::vector<int32_t> ids_of(const std::string& text) {
    return tokenizer()->encode(text, {false, false});
  }
  Generation run(std::vector<int32_t> script, const GenerateOptions& options,
                 int64_t capacity = 100, const TextCallback& on_text = nullptr,
                 const CancelToken* cancel = nullptr) {
    ScriptedRunner runner(std::move(script), capacity);
    pieces_.clear();
    const TextCallback collect = [&](std::string_view text) {
      pieces_.emplace_back(text);
      return !on_text || on_text(text);
    };
    const std::vector<int32_t> prompt = {0, 5, 6};
    auto out = generate(runner, tokenizer(), prompt, options, collect, cancel);
    EXPECT_TRUE(out.ok()) << out.status().to_string();
    fed_ = runner.fed;
    return out.ok() ? *out : Generation();
  }
  std::string shown() const {
    std::string out;
    for (const std::string& piece : pieces_) out += piece;
    return out;
  }

  std::vector<std::string> pieces_;
  std::vector<int32_t> fed_;
};

TEST_F(GenerateTest, CountsTokensAndFeedsEachOnce) {
  GenerateOptions options;
  options.max_tokens = 5;
  const std::vector<int32_t> script = ids_of(" one two three four five six seven");
  const Generation out = run(script, options);
  EXPECT_EQ(out.finish_reason, FinishReason::kLength);
  EXPECT_EQ(out.ids, std::vector<int32_t>(script.begin(), script.begin() + 5));
  EXPECT_EQ(fed_, std::vector<int32_t>(script.begin(), script.begin() + 4));  // not the last
  EXPECT_EQ(out.text, shown());
  EXPECT_GT(out.ttft_ms, 0);
  EXPECT_GT(out.prefill_tokens_per_s, 0);
  EXPECT_GT(out.decode_tokens_per_s, 0);
}

TEST_F(GenerateTest, AStopIdIsNeitherShownNorCounted) {
  GenerateOptions options;
  std::vector<int32_t> script = ids_of(" a dog");
  const size_t length = script.size();
  script.push_back(0);
  const Generation out = run(script, options);
  EXPECT_EQ(out.finish_reason, FinishReason::kStop);
  EXPECT_EQ(out.ids.size(), length);
  EXPECT_EQ(out.text, " a dog");
}

TEST_F(GenerateTest, WhatTheModelThinksIsKeptApart) {
  GenerateOptions options;
  std::vector<int32_t> script = ids_of("<think>a dog or a cat</think>A dog.");
  script.push_back(0);
  const Generation plain = run(script, options);
  EXPECT_EQ(plain.text, "<think>a dog or a cat</think>A dog.");
  EXPECT_EQ(plain.thinking, "");
  options.reply.layout = ReplyFormat::Layout::kThinking;
  options.reply.open_tag = "<think>";
  options.reply.close_tag = "</think>";
  const Generation out = run(script, options);
  EXPECT_EQ(out.text, "A dog.");
  EXPECT_EQ(shown(), "A dog.");
  EXPECT_EQ(out.thinking, "a dog or a cat");
  EXPECT_EQ(out.ids, plain.ids);
}

TEST_F(GenerateTest, StopTextsAcrossTokensAreNeverShown) {
  const std::string text = "The little dog ran to the big tree and sat down.";
  const std::vector<int32_t> script = ids_of(text);
  for (size_t at = 1; at + 7 < text.size(); ++at)
    for (const size_t length : {size_t{1}, size_t{2}, size_t{6}}) {
      GenerateOptions options;
      options.stop = {"zzz", text.substr(at, length)};
      const Generation out = run(script, options);
      const size_t first = text.find(options.stop[1]);
      EXPECT_EQ(out.text, text.substr(0, first)) << "stop '" << options.stop[1] << "'";
      EXPECT_EQ(shown(), out.text);
      EXPECT_EQ(out.finish_reason, FinishReason::kStop);
    }
}

TEST_F(GenerateTest, TheEarliestOfSeveralStopTextsWins) {
  GenerateOptions options;
  options.stop = {"tree", "og ran", "", "little"};
  EXPECT_EQ(run(ids_of("The little dog ran to the big tree."), options).text, "The ");
}

TEST_F(GenerateTest, TheBeginningOfAStopTextIsShownInTheEnd) {
  GenerateOptions options;
  const std::vector<int32_t> script = ids_of("one two thr");
  options.max_tokens = static_cast<int64_t>(script.size());
  options.stop = {"three"};
  const Generation out = run(script, options);
  EXPECT_EQ(out.text, "one two thr");
  EXPECT_EQ(out.finish_reason, FinishReason::kLength);
}

TEST_F(GenerateTest, PiecesNeverEndInsideACharacter) {
  GenerateOptions options;
  const std::string text =
      "a\xf0\x9f\x90\xb6"
      "b\xc3\xa9\xe2\x82\xac"
      "c";
  const std::vector<int32_t> script = ids_of(text);
  ASSERT_GT(script.size(), 5u);  // characters that are several tokens
  options.max_tokens = static_cast<int64_t>(script.size());
  EXPECT_EQ(run(script, options).text, text);
  for (const std::string& piece : pieces_) {
    EXPECT_NE(static_cast<unsigned char>(piece[0]) & 0xC0, 0x80) << piece;
    EXPECT_FALSE(piece.empty());
  }
  // Cut in the middle of a character: a replacement character, not broken bytes.
  options.max_tokens = 2;
  const std::string cut = run(script, options).text;
  EXPECT_EQ(cut.substr(0, 1), "a");
  EXPECT_EQ(cut.find("\xf0\x9f\x90"), std::string::npos);
}

TEST_F(GenerateTest, AFullContextEndsTheAnswer) {
  GenerateOptions options;
  options.max_tokens = 50;
  const Generation out = run(ids_of(" dog cat"), options, 7);
  EXPECT_EQ(out.finish_reason, FinishReason::kContextFull);
  EXPECT_EQ(out.ids.size(), 5u);  // 3 of the prompt, 4 fed, and one that did not fit any more
  EXPECT_EQ(to_string(out.finish_reason), "context_full");
  ScriptedRunner runner({7}, 2);
  const std::vector<int32_t> prompt = {1, 2, 3};
  EXPECT_EQ(generate(runner, tokenizer(), prompt, options, nullptr, nullptr).status().code(),
            StatusCode::kUsage);
  EXPECT_EQ(generate(runner, tokenizer(), {}, options, nullptr, nullptr).status().code(),
            StatusCode::kUsage);
}

TEST_F(GenerateTest, NaNIsAnErrorAndNotAnAnswer) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float spoiled : {std::numeric_limits<float>::quiet_NaN(), infinity})
    for (const int64_t from : {int64_t{0}, int64_t{4}}) {
      ScriptedRunner runner(ids_of(" dog cat"), 50);
      runner.spoil_from = from;
      runner.spoiled = spoiled;
      const std::vector<int32_t> prompt = {0, 1};
      const auto out = generate(runner, tokenizer(), prompt, {}, nullptr, nullptr);
      ASSERT_FALSE(out.ok());
      EXPECT_EQ(out.status().refusal(), Refusal::kRange);
    }
  // A token that is ruled out is an ordinary thing.
  ScriptedRunner runner(ids_of(" dog cat"), 50);
  runner.spoil_from = 0;
  runner.spoiled = -infinity;
  const std::vector<int32_t> prompt = {0, 1};
  EXPECT_TRUE(generate(runner, tokenizer(), prompt, {}, nullptr, nullptr).ok());
}

TEST_F(GenerateTest, TheCallerMayStop) {
  GenerateOptions options;
  int calls = 0;
  const Generation out =
      run(ids_of(" dog cat bird"), options, 100, [&](std::string_view) { return ++calls < 3; });
  EXPECT_EQ(out.finish_reason, FinishReason::kInterrupted);
  EXPECT_EQ(out.ids.size(), 3u);
  CancelToken cancel;
  const Generation cancelled = run(
      ids_of(" dog cat bird"), options, 100,
      [&](std::string_view) {
        cancel.cancel();
        return true;
      },
      &cancel);
  EXPECT_EQ(cancelled.finish_reason, FinishReason::kInterrupted);
  EXPECT_EQ(cancelled.ids.size(), 1u);
  const Generation before = run({7}, options, 100, nullptr, &cancel);
  EXPECT_EQ(before.finish_reason, FinishReason::kInterrupted);
  EXPECT_TRUE(before.ids.empty());
}

}  // namespace
}  // namespace pome
