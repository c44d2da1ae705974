// The recorded conversations, of one turn and of several, through the program.
#include <gtest/gtest.h>

#include "cli/program.h"

namespace pome {
namespace {

using namespace test;

TEST(ChatGolden, RecordedConversations) {
  const TempFolder folder;
  const std::string file = kTales + "/golden/chat.json";
  const auto all = parse_json(slurp(file), file);
  ASSERT_TRUE(all.ok());
  size_t longest = 0;
  for (const Json& conversation : *all) {
    Json said = conversation["messages"];
    longest = std::max(longest, said.size());
    const std::string last = said.back()["content"];
    said.erase(said.size() - 1);
    spit(folder / "said.json", said.dump());
    const Ended ended =
        pome({"chat", kTales, "--temp", "0", "-n", "400", "--json"},
             "/load " + (folder / "said.json") + "\n\"\"\"" + last + "\"\"\"\n/regen\n");
    ASSERT_EQ(ended.code, 0) << show(ended);
    const size_t end = ended.out.find('\n');
    const auto fresh = parse_json(ended.out.substr(0, end), "stdout");
    const auto again = parse_json(ended.out.substr(end + 1), "stdout");
    ASSERT_TRUE(fresh.ok() && again.ok()) << show(ended);
    for (const Json& answer : {*fresh, *again}) {
      EXPECT_EQ(answer["prompt_ids"], conversation["prompt_ids"]);
      EXPECT_EQ(answer["ids"], conversation["greedy_ids"]);
      EXPECT_EQ(answer["text"], conversation["text"]);
      EXPECT_EQ(answer["finish_reason"], conversation["finish_reason"]);
    }
    EXPECT_EQ((*fresh)["reused_tokens"], 0);
    EXPECT_EQ((*again)["reused_tokens"], conversation["prompt_ids"].size() - 1);
  }
  EXPECT_GT(longest, 1u);
}

}  // namespace
}  // namespace pome
