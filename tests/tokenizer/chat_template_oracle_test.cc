// Templates against the Python package Jinja2, set up as transformers does.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/python_oracle.h"
#include "tokenizer/template_cases.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

constexpr const char* kRender = R"py(
import json, sys
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.exceptions import TemplateError
import jinja2.ext
task = json.load(open(sys.argv[1], encoding='utf-8'))
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
def raise_exception(message):
    raise TemplateError(message)
env.globals['raise_exception'] = raise_exception
out = []
for source in task['templates']:
    try:
        out.append(env.from_string(source).render(**task['variables']))
    except Exception as error:
        out.append(None)
json.dump(out, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

const std::vector<ChatMessage> kMessages = {{"user", "  Hi there "}, {"assistant", "Fine."}};

Json variables() {
  Json messages = Json::array();
  for (const ChatMessage& m : kMessages) {
    messages.push_back({{"role", m.role}, {"content", m.content}});
  }
  return {{"messages", messages},
          {"add_generation_prompt", true},
          {"bos_token", "<s>"},
          {"eos_token", "</s>"}};
}

TokenizerSource tokens() {
  TokenizerSource source;
  source.bos_text = "<s>";
  source.eos_text = "</s>";
  return source;
}

TEST(ChatTemplateOracle, CasesRenderAsJinjaRendersThem) {
  POME_NEED_PYTHON("jinja2");
  std::vector<std::string> templates(std::begin(kTemplateCases), std::end(kTemplateCases));
  const Json output = run_python(kRender, {{"templates", templates}, {"variables", variables()}});
  ASSERT_TRUE(output.is_array());
  for (size_t i = 0; i < templates.size(); ++i) {
    ASSERT_TRUE(output[i].is_string()) << templates[i];
    const auto parsed = ChatTemplate::parse(templates[i]);
    ASSERT_TRUE(parsed.ok()) << templates[i] << "\n" << parsed.status().to_string();
    const auto spans = (*parsed)->render(kMessages, true, tokens());
    ASSERT_TRUE(spans.ok()) << templates[i] << "\n" << spans.status().to_string();
    EXPECT_EQ(plain_text(*spans), output[i].get<std::string>()) << templates[i];
  }
}

// What renders here renders as in Jinja; what is not known is refused with a place.
TEST(ChatTemplateOracle, PublishedTemplates) {
  POME_NEED_PYTHON("jinja2");
  const std::string folder = shared_path("data/chat-templates/templates");
  POME_NEED(folder + "/SOURCE.txt");
  std::vector<std::string> names, templates;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jinja") names.push_back(entry.path());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) templates.push_back(read_all(name));
  const Json output = run_python(kRender, {{"templates", templates}, {"variables", variables()}});
  ASSERT_TRUE(output.is_array());
  int same = 0, refused = 0;
  for (size_t i = 0; i < templates.size(); ++i) {
    const auto parsed = ChatTemplate::parse(templates[i]);
    auto spans = parsed.ok() ? (*parsed)->render(kMessages, true, tokens())
                             : Result<std::vector<TemplateSpan>>(parsed.status());
    if (!spans.ok()) {
      EXPECT_EQ(spans.status().refusal(), Refusal::kTemplate);
      EXPECT_EQ(spans.status().where().substr(0, 5), "line ");
      std::printf("refused %s: %s\n", names[i].substr(folder.size() + 1).c_str(),
                  spans.status().to_string().c_str());
      ++refused;
      continue;
    }
    if (!output[i].is_string()) continue;
    EXPECT_EQ(plain_text(*spans), output[i].get<std::string>()) << names[i];
    ++same;
  }
  std::printf("%d templates rendered, %d refused\n", same, refused);
  EXPECT_GT(same, 5);
}

}  // namespace
}  // namespace pome
