// Templates against the Python package Jinja2, set up as transformers sets it up
// (jinja_reference.py). Where Jinja2 raises, we must refuse.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tokenizer/chat_conversations.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/python_oracle.h"
#include "tokenizer/template_cases.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

Json reference(const Json& task) {
  return run_python_file(std::string(POME_SOURCE_DIR) + "/tests/tokenizer/jinja_reference.py",
                         task);
}

using Parsed = Result<std::shared_ptr<const ChatTemplate>>;

Result<std::string> render(const Parsed& parsed, const ChatInput& input) {
  if (!parsed.ok()) return parsed.status();
  const auto spans = (*parsed)->render(input, conversation_tokens());
  if (!spans.ok()) return spans.status();
  return plain_text(*spans);
}
Result<std::string> render(const std::string& source, const ChatInput& input) {
  return render(ChatTemplate::parse(source), input);
}

std::string shown(const Result<std::string>& result) {
  return result.ok() ? *result : result.status().to_string();
}

TEST(ChatTemplateOracle, CasesRenderAsJinjaRendersThem) {
  POME_NEED_PYTHON("jinja2");
  ChatInput input;
  input.messages = conversations::parsed(
      R"([{"role": "user", "content": "  Hi there "}, {"role": "assistant", "content": "Fine."}])");
  input.now = kConversationTime;
  Json task = {{"templates", Json::array()},
               {"inputs", Json::array({reference_variables(input)})},
               {"cases", Json::array()}};
  for (const char* source : kTemplateCases) {
    task["cases"].push_back({task["templates"].size(), 0});
    task["templates"].push_back(source);
  }
  const Json output = reference(task);
  ASSERT_EQ(output.size(), std::size(kTemplateCases));
  for (size_t i = 0; i < output.size(); ++i) {
    ASSERT_TRUE(output[i].is_string()) << kTemplateCases[i];
    const auto text = render(kTemplateCases[i], input);
    ASSERT_TRUE(text.ok()) << kTemplateCases[i] << "\n" << text.status().to_string();
    EXPECT_EQ(*text, output[i].get<std::string>()) << kTemplateCases[i];
  }
}

// Every template with every conversation (POME_JINJA_ALL=1; without it every fourth one): the same
// text, or both refuse.
TEST(ChatTemplateOracle, PublishedTemplates) {
  POME_NEED_PYTHON("jinja2");
  const std::string folder = shared_path("data/chat-templates/templates");
  POME_NEED(folder + "/SOURCE.txt");
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jinja") names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  const std::vector<Conversation> conversations = all_conversations();
  Json task = {{"templates", Json::array()},
               {"inputs", Json::array()},
               {"cases", Json::array()},
               {"now", kConversationTime}};
  for (const std::string& name : names) task["templates"].push_back(read_all(folder + "/" + name));
  for (const Conversation& c : conversations) {
    task["inputs"].push_back(reference_variables(c.input));
  }
  const bool all = std::getenv("POME_JINJA_ALL") != nullptr;
  for (size_t t = 0; t < names.size(); ++t) {
    for (size_t i = 0; i < conversations.size(); ++i) {
      if (all || (t + i) % 4 == 0) task["cases"].push_back({t, i});
    }
  }
  const Json output = reference(task);
  ASSERT_EQ(output.size(), task["cases"].size());
  int same = 0, refused = 0, different = 0, used = 0;
  size_t next = 0;
  for (size_t t = 0; t < names.size(); ++t) {
    int rendered = 0;
    const Parsed parsed = ChatTemplate::parse(task["templates"][t].get<std::string>());
    for (; next < output.size() && task["cases"][next][0] == t; ++next) {
      const size_t i = task["cases"][next][1];
      const Json& expected = output[next];
      const auto text = render(parsed, conversations[i].input);
      if (!text.ok()) {
        EXPECT_EQ(text.status().refusal(), Refusal::kTemplate);
        EXPECT_EQ(text.status().where().substr(0, 5), "line ") << text.status().to_string();
      }
      if (!text.ok() && expected.is_null()) {
        ++refused;
      } else if (text.ok() && expected.is_string() && *text == expected.get<std::string>()) {
        ++same;
        ++rendered;
      } else if (++different <= 20) {
        ADD_FAILURE() << names[t] << " with " << conversations[i].name << "\nexpected "
                      << dump_json(expected) << "\ngot " << shown(text);
      }
    }
    used += rendered > 0 ? 1 : 0;
    EXPECT_TRUE(rendered > 0 || !all) << names[t] << " renders nothing";
  }
  std::printf("%d templates, %d texts equal, %d refused by both, %d different\n", used, same,
              refused, different);
  EXPECT_EQ(different, 0);
}

// Published templates with texts that were recorded elsewhere.
TEST(ChatTemplateOracle, RecordedTexts) {
  const std::string path =
      shared_path("data/chat-templates/jinja.cpp/tests/test_chat_template.json");
  POME_NEED(path);
  const auto models = read_json_file(path);
  ASSERT_TRUE(models.ok()) << models.status().to_string();
  int same = 0, all = 0;
  for (const auto& [name, model] : models->items()) {
    const auto parsed = ChatTemplate::parse(model["template"].get<std::string>());
    ASSERT_TRUE(parsed.ok()) << name << ": " << parsed.status().to_string();
    for (const Json& item : model["cases"]) {
      ChatInput input;
      input.messages = item["messages"];
      if (item.contains("tools")) input.tools = item["tools"];
      input.add_generation_prompt = item["add_generation_prompt"];
      input.variables = model["special_tokens"];
      input.now = 1765929600;  // 2025-12-17, when they were recorded
      const auto spans = (*parsed)->render(input, TokenizerSource());
      ++all;
      const std::string expected = item["expected"];
      if (spans.ok() && plain_text(*spans) == expected) {
        ++same;
        continue;
      }
      ADD_FAILURE() << name << ", " << item["description"] << "\nexpected " << expected << "\ngot "
                    << (spans.ok() ? plain_text(*spans) : spans.status().to_string());
    }
  }
  std::printf("%d of %d recorded texts equal\n", same, all);
}

// Random templates. POME_JINJA_CASES sets how many, POME_JINJA_SEED where to begin.
TEST(ChatTemplateOracle, RandomTemplates) {
  POME_NEED_PYTHON("jinja2");
  const char* const count = std::getenv("POME_JINJA_CASES");
  const char* const seed = std::getenv("POME_JINJA_SEED");
  const Json output = reference(
      {{"random", count ? std::atoi(count) : 1000}, {"seed", seed ? std::atoi(seed) : 1}});
  ASSERT_TRUE(output.is_array());
  int same = 0, refused = 0, beyond = 0, different = 0;
  for (const Json& item : output) {
    ChatInput input;
    input.variables = item["input"];
    input.messages = item["input"]["messages"];
    input.variables.erase("messages");
    input.now = kConversationTime;
    const std::string source = item["template"];
    const auto text = render(source, input);
    const Json& expected = item["output"];
    if (!text.ok() && expected.is_null()) {
      ++refused;
    } else if (text.ok() && expected.is_string() && *text == expected.get<std::string>()) {
      ++same;
    } else if (!text.ok() && text.status().message().find("64 bits") != std::string::npos) {
      ++beyond;  // integers of any size are Python's alone
    } else if (++different <= 5) {
      ADD_FAILURE() << source << "\nwith " << dump_json(item["input"]) << "\nexpected "
                    << dump_json(expected) << "\ngot " << shown(text);
    }
  }
  std::printf("%d texts equal, %d refused by both, %d beyond 64 bits, %d different\n", same,
              refused, beyond, different);
  EXPECT_EQ(different, 0);
  EXPECT_GT(same, static_cast<int>(output.size() / 3));
}

}  // namespace
}  // namespace pome
