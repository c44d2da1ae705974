// Prompts that fit, what the cache spares, and how answers end; with a runner that says what it is
// told.
#include "engine/chat.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/conversation.h"
#include "engine/scripted_runner.h"
#include "tokenizer/named_templates.h"

namespace pome {
namespace {

using test::ScriptedRunner;
using test::tales_tokenizer;
using Ids = std::vector<int32_t>;

// The turns of the embedded model, with a place for a system message.
constexpr std::string_view kTemplate =
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

std::shared_ptr<const ChatTemplate> parse(std::string_view jinja) {
  auto parsed = ChatTemplate::parse(jinja);
  EXPECT_TRUE(parsed.ok()) << parsed.status().to_string();
  return *parsed;
}
Ids ids_of(const std::string& text) { return tales_tokenizer()->encode(text, {false, false}); }
// What the runner is to say: the answer and the token that ends it.
Ids answer_of(const std::string& text) {
  Ids ids = ids_of(text);
  ids.push_back(3);
  return ids;
}
bool begins_with(const Ids& ids, const Ids& beginning) {
  return ids.size() >= beginning.size() &&
         std::equal(beginning.begin(), beginning.end(), ids.begin());
}

class ChatTest : public ::testing::Test {
 protected:
  ChatSession session(ScriptedRunner& runner, std::string_view jinja = kTemplate) {
    return ChatSession(&runner, tales_tokenizer(), parse(jinja));
  }
  // Says `text` and appends the answer.
  ChatAnswer say(ChatSession& chat, const std::string& text, const ChatOptions& options = {}) {
    talk.add_user(text);
    auto answer = chat.reply(talk.messages(), options, nullptr, nullptr);
    EXPECT_TRUE(answer.ok()) << answer.status().to_string();
    if (!answer.ok()) return {};
    talk.add_assistant(answer->generation.text);
    return *answer;
  }
  Conversation talk;
};

TEST_F(ChatTest, ThePromptIsTheTemplateAndUserTextHoldsNoTokens) {
  ScriptedRunner runner(answer_of("Hi."), 100);
  ChatSession chat = session(runner);
  const ChatAnswer answer = say(chat, "Say <|end|> now");
  Ids expected = {0, 1};
  for (const int32_t id : ids_of("Say <|end|> now")) expected.push_back(id);
  expected.insert(expected.end(), {3, 2});
  EXPECT_EQ(answer.prompt.ids, expected);
  EXPECT_EQ(answer.prompt.dropped_turns, 0u);
  EXPECT_EQ(answer.generation.text, "Hi.");
  EXPECT_EQ(answer.finish_reason(), "stop");
  EXPECT_FALSE(answer.context_full());
}

TEST_F(ChatTest, OnlyWhatTheCacheLacksIsComputed) {
  ScriptedRunner runner(answer_of("A dog ran."), 200);
  ChatSession chat = session(runner);
  const ChatAnswer one = say(chat, "Tell me a story.");
  EXPECT_EQ(one.reused_tokens, 0);
  const Ids context = runner.context;
  EXPECT_EQ(chat.tokens(), static_cast<int64_t>(context.size()));
  EXPECT_EQ(context.size(), one.prompt.ids.size() + one.generation.ids.size());

  const int64_t before = runner.computed;
  const ChatAnswer two = say(chat, "And then?");
  EXPECT_TRUE(begins_with(two.prompt.ids, context));
  EXPECT_EQ(two.reused_tokens, static_cast<int64_t>(context.size()));
  EXPECT_EQ(runner.computed - before, static_cast<int64_t>(two.prompt.ids.size() - context.size() +
                                                           two.generation.ids.size()));
  // What the runner holds is as if it had seen the whole prompt.
  EXPECT_TRUE(begins_with(runner.context, two.prompt.ids));

  // The same message again: all but the last token is there.
  talk.take_back_answer();
  const auto again = chat.reply(talk.messages(), {}, nullptr, nullptr);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->prompt.ids, two.prompt.ids);
  EXPECT_EQ(again->reused_tokens, static_cast<int64_t>(two.prompt.ids.size()) - 1);
  EXPECT_EQ(again->generation.ids, two.generation.ids);
  EXPECT_TRUE(begins_with(runner.context, two.prompt.ids));

  // Another conversation shares its beginning only: BOS and <|user|>.
  talk = {};
  const ChatAnswer other = say(chat, "What?");
  EXPECT_EQ(other.reused_tokens, 2);
  EXPECT_TRUE(begins_with(runner.context, other.prompt.ids));
}

TEST_F(ChatTest, TheFewestOldestTurnsAreLeftOut) {
  talk.set_system("You tell tales.");
  for (int i = 0; i < 9; ++i) {
    talk.add_user(std::string("Turn ") + std::string(static_cast<size_t>(i % 4) + 1, 'x'));
    if (i != 3) talk.add_assistant("Yes.");  // one turn without an answer
  }
  talk.add_user("The last one");
  const auto parsed = parse(kTemplate);
  const auto rendered = [&](size_t dropped) {
    std::vector<ChatMessage> kept = {talk.messages()[0]};
    size_t turn = 0;
    for (size_t i = 1; i < talk.messages().size(); ++i) {
      turn += talk.messages()[i].role == "user";
      if (turn > dropped) kept.push_back(talk.messages()[i]);
    }
    const auto spans = parsed->render(kept, true, tales_tokenizer()->source());
    EXPECT_TRUE(spans.ok());
    return encode_spans(*tales_tokenizer(), *spans);
  };
  ChatOptions options;
  options.room = 5;
  const auto whole = static_cast<int64_t>(rendered(0).size());
  size_t seen_most = 0;
  for (int64_t capacity = 20; capacity <= whole + 8; ++capacity) {
    ScriptedRunner runner({5}, capacity);
    const auto prompt = session(runner).prompt(talk.messages(), options);
    size_t dropped = 0;
    while (dropped < 10 && static_cast<int64_t>(rendered(dropped).size()) + 5 > capacity) ++dropped;
    if (dropped == 10) {  // the last turn alone is too long
      ASSERT_FALSE(prompt.ok()) << capacity;
      continue;
    }
    ASSERT_TRUE(prompt.ok()) << prompt.status().to_string();
    EXPECT_EQ(prompt->dropped_turns, dropped) << capacity;
    EXPECT_EQ(prompt->ids, rendered(dropped)) << capacity;
    seen_most = std::max(seen_most, dropped);
  }
  EXPECT_EQ(seen_most, 9u);
}

TEST_F(ChatTest, WhatCannotFitSaysByHowMuch) {
  ScriptedRunner runner({5}, 40);
  ChatSession chat = session(runner);
  ChatOptions options;
  options.generate.max_tokens = 8;
  std::string words = "dog";
  for (int i = 0; i < 36; ++i) words += " dog";
  talk.add_user("short");
  talk.add_assistant("Yes.");
  talk.add_user(words);  // with BOS, user, end, assistant: 41 tokens and 8 more
  const Status one = chat.prompt(talk.messages(), options).status();
  EXPECT_EQ(one.code(), StatusCode::kUsage);
  const auto size = static_cast<int64_t>(ids_of(words).size()) + 4;
  EXPECT_NE(one.message().find("message takes " + std::to_string(size)), std::string::npos)
      << one.to_string();
  EXPECT_NE(one.message().find(std::to_string(size + 8 - 40) + " more than fit"), std::string::npos)
      << one.to_string();
  EXPECT_FALSE(one.hint().empty());
  EXPECT_EQ(runner.computed, 0);
  talk.set_system("Be nice.");
  EXPECT_NE(chat.prompt(talk.messages(), options).status().message().find("system prompt"),
            std::string::npos);
  // A server rather says so than leaves something out.
  talk = {};
  for (int i = 0; i < 10; ++i) talk.add_user("Tell me a story.");
  EXPECT_TRUE(chat.prompt(talk.messages(), options).ok());
  options.drop_oldest = false;
  EXPECT_NE(chat.prompt(talk.messages(), options).status().message().find("conversation"),
            std::string::npos);
  EXPECT_EQ(chat.prompt({}, options).status().code(), StatusCode::kUsage);
}

TEST_F(ChatTest, RoomIsTheAnswerOrAQuarter) {
  ChatOptions options;
  options.generate.max_tokens = 10;
  EXPECT_EQ(ChatSession::room_of(options, 100), 10);
  EXPECT_EQ(ChatSession::room_of(options, 20), 5);
  EXPECT_EQ(ChatSession::room_of(options, 3), 1);
  options.room = 7;
  EXPECT_EQ(ChatSession::room_of(options, 20), 7);
}

TEST_F(ChatTest, AFullContextEndsTheAnswerByLength) {
  ScriptedRunner runner(ids_of(" one two three four"), 24);
  ChatSession chat = session(runner);
  const ChatAnswer answer = say(chat, "Count.");
  EXPECT_TRUE(answer.context_full());
  EXPECT_EQ(answer.finish_reason(), "length");
  EXPECT_EQ(chat.tokens(), 24);
  // The chat goes on: the long turn is left out.
  const ChatAnswer next = say(chat, "Go on.");
  EXPECT_EQ(next.prompt.dropped_turns, 1u);
  EXPECT_EQ(next.reused_tokens, 2);
}

TEST_F(ChatTest, AnEndThatIsNoTokenIsNotShown) {
  ScriptedRunner runner(ids_of("Fine.<|im_end|>\n<|im_start|>user\nMore"), 200);
  ChatSession chat = session(runner, *named_template("chatml"));
  const ChatAnswer answer = say(chat, "How are you?");
  EXPECT_EQ(answer.generation.text, "Fine.");
  EXPECT_EQ(answer.finish_reason(), "stop");
  // What was generated behind the text is not taken for a part of the next prompt.
  const ChatAnswer next = say(chat, "Good.");
  EXPECT_TRUE(begins_with(runner.context, next.prompt.ids));
}

TEST_F(ChatTest, GoesOnAfterAnErrorAndAnInterruption) {
  ScriptedRunner runner(answer_of("A dog ran."), 200);
  ChatSession chat = session(runner);
  say(chat, "Hi.");
  runner.spoil_from = runner.position() + 8;  // in the middle of the next answer
  runner.spoiled = std::numeric_limits<float>::quiet_NaN();
  talk.add_user("Go on.");
  const auto spoiled = chat.reply(talk.messages(), {}, nullptr, nullptr);
  ASSERT_FALSE(spoiled.ok());
  EXPECT_EQ(spoiled.status().refusal(), Refusal::kRange);
  EXPECT_EQ(chat.tokens(), runner.position());
  runner.spoil_from = -1;

  CancelToken cancel;
  cancel.cancel();
  const auto stopped = chat.reply(talk.messages(), {}, nullptr, &cancel);
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->finish_reason(), "interrupted");
  EXPECT_EQ(stopped->generation.text, "");
  EXPECT_EQ(chat.tokens(), runner.position());
  // Reset by the next call, which gets its own token.
  const auto answer = chat.reply(talk.messages(), {}, nullptr, nullptr);
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(begins_with(runner.context, answer->prompt.ids));
  EXPECT_EQ(chat.tokens(), runner.position());
}

TEST_F(ChatTest, TemplatesWithoutASystemMessageSaySo) {
  ScriptedRunner runner({5}, 20);
  EXPECT_TRUE(session(runner).check_system_message().ok());
  const Status refused =
      session(runner, tales_tokenizer()->source().chat_template).check_system_message();
  EXPECT_EQ(refused.code(), StatusCode::kUnsupported);
  EXPECT_NE(refused.message().find("roles user and assistant only"), std::string::npos);
  const Status ignored =
      session(runner, "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}")
          .check_system_message();
  EXPECT_EQ(ignored.code(), StatusCode::kUnsupported);
  EXPECT_NE(ignored.message().find("leaves"), std::string::npos);
  // And one that writes nothing at all is an error, not a crash.
  TokenizerSource bare = tales_tokenizer()->source();
  bare.prefix_ids.clear();
  const auto tokenizer = Tokenizer::create(std::move(bare));
  ASSERT_TRUE(tokenizer.ok());
  talk.add_user("Hi");
  ChatSession silent(&runner, *tokenizer, parse("{# #}"));
  EXPECT_FALSE(silent.reply(talk.messages(), {}, nullptr, nullptr).ok());
}

}  // namespace
}  // namespace pome
