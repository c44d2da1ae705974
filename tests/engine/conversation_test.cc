#include "engine/conversation.h"

#include <gtest/gtest.h>

namespace pome {
namespace {

std::string roles(const Conversation& conversation) {
  std::string out;
  for (const ChatMessage& message : conversation.messages()) out += message.role[0];
  return out;
}

TEST(Conversation, TurnsComeAndGo) {
  Conversation c;
  EXPECT_FALSE(c.undo());
  EXPECT_FALSE(c.take_back_answer());
  EXPECT_EQ(c.last_user(), std::nullopt);
  c.add_user("one");
  c.add_assistant("1");
  c.set_system("be brief");  // also later than the first message, it stands in front
  c.add_user("two");
  c.add_assistant("2");
  EXPECT_EQ(roles(c), "suaua");
  EXPECT_EQ(c.turns(), 2u);
  EXPECT_EQ(c.last_user(), "two");
  EXPECT_TRUE(c.take_back_answer());
  EXPECT_EQ(roles(c), "suau");
  EXPECT_TRUE(c.take_back_answer());  // nothing stands behind it: still the message to answer
  EXPECT_EQ(roles(c), "suau");
  EXPECT_TRUE(c.undo());
  EXPECT_EQ(roles(c), "sua");
  EXPECT_TRUE(c.undo());
  EXPECT_FALSE(c.undo());
  EXPECT_EQ(roles(c), "s");
  c.add_user("three");
  c.clear();
  EXPECT_EQ(roles(c), "s");
  EXPECT_EQ(c.system(), "be brief");
  c.set_system("be long");
  EXPECT_EQ(c.messages().size(), 1u);
  c.set_system("");
  EXPECT_TRUE(c.messages().empty());
}

TEST(Conversation, JsonThereAndBack) {
  Conversation c;
  c.set_system("s");
  c.add_user("line\n\"quoted\" \xc3\xa9");
  c.add_assistant("");
  const Json json = c.to_json();
  EXPECT_EQ(json.dump().substr(0, 35), R"([{"role":"system","content":"s"},{")");
  for (const Json& form : {json, Json({{"messages", json}, {"model", "x"}})}) {
    const auto back = Conversation::from_json(form, "f");
    ASSERT_TRUE(back.ok()) << back.status().to_string();
    EXPECT_EQ(back->to_json(), json);
  }
}

TEST(Conversation, WrongFilesAreRefusedByPlace) {
  const struct {
    const char *json, *where;
    Refusal refusal;
  } kCases[] = {
      {R"({})", "", Refusal::kType},
      {R"("text")", "", Refusal::kType},
      {R"({"messages": {}})", "/messages", Refusal::kType},
      {R"([{"role": "user"}])", "/0", Refusal::kType},
      {R"([{"role": "user", "content": "a"}, 7])", "/1", Refusal::kType},
      {R"({"messages": [{"role": "user", "content": ["a"]}]})", "/messages/0", Refusal::kType},
      {R"([{"role": 1, "content": "a"}])", "/0", Refusal::kType},
      {R"([{"role": "robot", "content": "a"}])", "/0", Refusal::kRange},
      {R"([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}])", "/1",
       Refusal::kRange},
  };
  for (const auto& one : kCases) {
    const auto read = Conversation::from_json(Json::parse(one.json), "talk.json");
    ASSERT_FALSE(read.ok()) << one.json;
    EXPECT_EQ(read.status().refusal(), one.refusal) << one.json;
    EXPECT_EQ(read.status().file(), "talk.json");
    EXPECT_EQ(read.status().where(), one.where) << one.json;
  }
}

}  // namespace
}  // namespace pome
