// Recorded conversations, of one turn and of several: rendered text, ids, and the greedy answer.
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/temp_folder.h"
#include "engine/generate.h"
#include "verify/model.h"
#include "verify/tampered.h"

namespace pome {
namespace {

using namespace test;

void expect_conversations(const std::string& path, bool exact) {
  LoadOptions load;
  load.threads = 2;
  auto model = load_model(path, load, {});
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  ASSERT_TRUE(model->chat_template != nullptr);
  const std::string file = kTales + "/golden/chat.json";
  const auto all = parse_json(slurp(file), file);
  ASSERT_TRUE(all.ok());
  size_t longest = 0;
  for (const Json& conversation : *all) {
    std::vector<ChatMessage> messages;
    for (const Json& message : conversation["messages"])
      messages.push_back({message["role"], message["content"]});
    longest = std::max(longest, messages.size());
    const auto spans = model->chat_template->render(messages, true, model->tokenizer->source());
    ASSERT_TRUE(spans.ok()) << spans.status().to_string();
    EXPECT_EQ(plain_text(*spans), conversation["rendered"]);
    const std::vector<int32_t> ids = encode_spans(*model->tokenizer, *spans);
    EXPECT_EQ(Json(ids), conversation["prompt_ids"]);

    ASSERT_TRUE(model->runner->truncate(0).ok());
    GenerateOptions options;
    const bool cut = conversation["finish_reason"] == "length";
    options.max_tokens = cut ? static_cast<int64_t>(conversation["greedy_ids"].size()) : 400;
    const auto out = generate(*model->runner, model->tokenizer, ids, options, nullptr, nullptr);
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    if (!exact) {
      // fp16 weights may fork where two tokens are nearly equal, but not at the first words.
      ASSERT_GT(out->ids.size(), 4u);
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Json(out->ids[i]), conversation["greedy_ids"][i]);
      continue;
    }
    EXPECT_EQ(Json(out->ids), conversation["greedy_ids"]);
    EXPECT_EQ(out->text, conversation["text"]);
    EXPECT_EQ(to_string(out->finish_reason), conversation["finish_reason"]);
  }
  EXPECT_GT(longest, 1u);  // a conversation with an answer in the middle was among them
}

TEST(ChatGolden, TheModel) { expect_conversations(kTales, true); }

TEST(ChatGolden, ItsPackage) {
  const TempFolder folder(true);
  ASSERT_TRUE(make_artefact(folder / "f16", "f16", 1024).ok());
  expect_conversations(folder / "f16", false);
}

}  // namespace
}  // namespace pome
