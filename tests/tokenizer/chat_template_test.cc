#include "tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "tokenizer/template_cases.h"

namespace pome {
namespace {

const std::vector<ChatMessage> kMessages = {{"user", "  Hi there "}, {"assistant", "Fine."}};

TokenizerSource tokens() {
  TokenizerSource source;
  source.bos_text = "<s>";
  source.eos_text = "</s>";
  return source;
}

Result<std::vector<TemplateSpan>> spans_of(const std::string& source,
                                           const std::vector<ChatMessage>& messages = kMessages) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return std::move(parsed).status();
  return (*parsed)->render(messages, true, tokens());
}
std::string render(const std::string& source) {
  const auto spans = spans_of(source);
  EXPECT_TRUE(spans.ok()) << source << "\n" << spans.status().to_string();
  return spans.ok() ? plain_text(*spans) : std::string();
}
// User text in brackets.
std::string marked(const std::string& source,
                   const std::vector<ChatMessage>& messages = kMessages) {
  const auto spans = spans_of(source, messages);
  EXPECT_TRUE(spans.ok()) << source << "\n" << spans.status().to_string();
  std::string out;
  for (size_t i = 0; spans.ok() && i < spans->size(); ++i) {
    const TemplateSpan& span = (*spans)[i];
    out += span.from_user ? "[" + span.text + "]" : span.text;
  }
  return out;
}
Status error(const std::string& source) { return spans_of(source).status(); }

TEST(ChatTemplate, LiteralsExpressionsAndBlocks) {
  EXPECT_EQ(render("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim "
                   "}}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% "
                   "endif %}"),
            "<s><|user|>Hi there</s><|assistant|>Fine.</s><|assistant|>");
  EXPECT_EQ(render("{{ 1 + 2 * 3 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 7 / 2 }}"), "73-423.5");
  EXPECT_EQ(render("{{ 'a' ~ 1 ~ none ~ true }}{{ [1, 'x'] }}"), "a1NoneTrue[1, 'x']");
}

TEST(ChatTemplate, WhitespaceRules) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(render("a \n {%- if true -%} \n b {%- endif %} c"), "ab c");
  EXPECT_EQ(render("a\n  {{ 1 }}\nb\n\n"), "a\n  1\nb\n");
  EXPECT_EQ(render("  {%+ if true %}x{% endif +%}\ny"), "  x\ny");
  EXPECT_EQ(render("x {# c #}\ny"), "x y");
}

TEST(ChatTemplate, ScopesOfLoopsAndNamespaces) {
  EXPECT_EQ(render("{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}"),
            "1");
  EXPECT_EQ(render("{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}"), "2");
  EXPECT_EQ(render("{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}"
                   "{% endfor %}{{ n.x }}"),
            "3");
}

TEST(ChatTemplate, UserTextStaysMarked) {
  EXPECT_EQ(marked("<{{ messages[0].content }}>"), "<[  Hi there ]>");
  EXPECT_EQ(marked("{{ '<' + messages[0].content | trim + '>' }}"), "<[Hi there]>");
  EXPECT_EQ(marked("{{ ('a' ~ messages[1].content ~ 'b') | upper }}"), "A[FINE.]B");
  EXPECT_EQ(marked("{% set x %}a{{ messages[1].content }}{% endset %}{{ x }}"), "a[Fine.]");
  EXPECT_EQ(marked("{{ messages[1].content[1:3] }}{{ messages[1].content[0] }}"), "[inF]");
  EXPECT_EQ(marked("{{ messages[1].content.split('n') | join('+') }}"), "[Fi]+[e.]");
  EXPECT_EQ(marked("{{ messages[1].content.replace('n', 'N') }}"), "[Fi]N[e.]");
  EXPECT_EQ(marked("{{ [messages[1].content] }}"), "['[Fine.]']");
  EXPECT_EQ(marked("{% for c in messages[1].content %}{{ c }}{% endfor %}"), "[Fine.]");
  EXPECT_EQ(marked("{{ messages[1].content | string | default('x') | list | last }}"), "[.]");
  EXPECT_EQ(marked("{{ messages[0]['content'].strip().title() }}"), "[Hi There]");
  // A role is a name, unless it could be more than that.
  EXPECT_EQ(marked("<|{{ messages[0].role }}|>"), "<|user|>");
  EXPECT_EQ(marked("{{ messages[0].role }}", {{"a<|end|>", "x"}}), "[a<|end|>]");
}

TEST(ChatTemplate, TokensThatAModelDoesNotHaveAreUndefined) {
  auto parsed = ChatTemplate::parse("{{ bos_token is defined }}{{ bos_token }}");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(plain_text(*(*parsed)->render({}, true, TokenizerSource())), "False");
}

TEST(ChatTemplate, ErrorsNameThePlace) {
  const struct {
    const char* source;
    const char* where;
    const char* message;
  } cases[] = {
      {"a\n {{ 'x' | nofilter }}", "line 2 column 11", "unknown filter \"nofilter\""},
      {"{{ 1 is notest }}", "line 1 column 9", "unknown test \"notest\""},
      {"{{ nofunction() }}", "line 1 column 14", "\"nofunction\" is undefined"},
      {"\n\n{% notag %}", "line 3 column 4", "unknown tag \"notag\""},
      {"{{ 'a'.nomethod() }}", "line 1 column 16", "a str has no attribute \"nomethod\""},
      {"{{ missing.field }}", "line 1 column 11", "\"missing\" is undefined"},
      {"{{ raise_exception('no ' ~ 'way') }}", "line 1 column 19", "the template says: no way"},
      {"{% if true %}", "line 1 column 4", "block without endif"},
      {"{% for a in b %}{% endif %}", "line 1 column 20", "unknown tag \"endif\""},
      {"{{ 'open }}", "line 1 column 4", "string without closing quote"},
      {"{{ 1 + }}", "line 1 column 8", "unexpected \"}}\""},
      {"{{ (1 }}", "line 1 column 7", "unexpected \"}\""},
      {"{{ 1 ", "line 1 column 1", "tag without }}"},
      {"{% raw %}", "line 1 column 1", "raw without endraw"},
      {"{% break %}", "line 1 column 4", "there is no loop around it"},
      {"{% include 'x' %}", "line 1 column 4", "\"include\": a chat template stands alone"},
      {"{{ 'x' | random }}", "line 1 column 10", "random: this filter is not supported"},
      {"{{ 'x' | trim(1, 2) }}", "line 1 column 10", "trim: too many arguments"},
      {"{{ 'x' | replace('a') }}", "line 1 column 10", "replace: \"new\" is missing"},
      {"{{ 'x' | trim(q=1) }}", "line 1 column 10", "trim: no argument is named \"q\""},
      {"{{ [].append(1) }}", "line 1 column 13", "the sandbox does not allow \"append\" of a list"},
      {"{{ ''.__class__.x }}", "line 1 column 16",
       "the sandbox does not allow \"__class__\" of a str"},
      {"{% set n = namespace() %}{% set n._x = 1 %}", "line 1 column 33",
       "the sandbox does not allow names of a namespace that begin with \"_\""},
      {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "line 1 column 35",
       "macro \"f\": too many arguments"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "line 1 column 20",
       "macros or loops call one another deeper than 200"},
      {"{{ range(100001) }}", "line 1 column 9", "range: a range has at most 100000 items"},
      {"{% for a, b in [[1]] %}{% endfor %}", "line 1 column 8", "there are 1 values for 2 names"},
      {"{# open", "line 1 column 1", "comment without #}"},
      {"{{ 1 + 'a' }}", "line 1 column 6", "\"+\" between int and str"},
      {"{{ 1 // 0 }}", "line 1 column 6", "division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "line 1 column 24", "the result does not fit 64 bits"},
      {"{{ 99999999999999999999 }}", "line 1 column 4", "number does not fit 64 bits"},
      {"{{ 2 ** 1000000000 }}", "line 1 column 6", "the result does not fit 64 bits"},
      {"{{ 1 ! 2 }}", "line 1 column 6", "unexpected character \"!\""},
  };
  for (const auto& expected : cases) {
    const Status status = error(expected.source);
    EXPECT_EQ(status.refusal(), Refusal::kTemplate) << expected.source;
    EXPECT_EQ(status.where(), expected.where) << expected.source << ": " << status.to_string();
    EXPECT_EQ(status.message(), expected.message) << expected.source;
  }
}

TEST(ChatTemplate, InputsOfAllKinds) {
  const auto parsed = ChatTemplate::parse(
      "{{ messages[0].content[0].text }}|{{ tools }}|{{ documents is none }}|{{ flag }}|"
      "{{ strftime_now('%Y-%m-%d %H:%M') }}|{{ messages[0].n }}|{{ add_generation_prompt }}");
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
  ChatInput input;
  input.messages = Json::parse(
      R"([{"role": "user", "content": [{"type": "text", "text": "hi"}], "n": [1, 2.5, null, true]}])");
  input.tools = Json::parse(R"([{"name": "f"}])");
  input.variables = {{"flag", "x"}};
  input.add_generation_prompt = false;
  input.now = 1700000000;
  const auto spans = (*parsed)->render(input, tokens());
  ASSERT_TRUE(spans.ok()) << spans.status().to_string();
  EXPECT_EQ(plain_text(*spans),
            "hi|[{'name': 'f'}]|True|x|2023-11-14 22:13|[1, 2.5, None, True]|False");

  input.messages = Json::object();
  EXPECT_EQ((*parsed)->render(input, tokens()).status().refusal(), Refusal::kType);
  input.messages = Json::parse(R"([{"role": "user", "content": 18446744073709551615}])");
  EXPECT_EQ((*parsed)->render(input, tokens()).status().refusal(), Refusal::kOverflow);
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = Json::array({deep});
  input.messages = Json::array({{{"role", "user"}, {"content", deep}}});
  EXPECT_EQ((*parsed)->render(input, tokens()).status().refusal(), Refusal::kDepth);
}

TEST(ChatTemplate, TheTimeComesFromTheEnvironment) {
  setenv("SOURCE_DATE_EPOCH", "86400", 1);
  EXPECT_EQ(render("{{ strftime_now('%d %B %Y, %A %j') }}"), "02 January 1970, Friday 002");
  unsetenv("SOURCE_DATE_EPOCH");
  EXPECT_GE(render("{{ strftime_now('%Y') }}"), "2024");
}

TEST(ChatTemplate, NestingUpToTheBoundWorks) {
  std::string open, close, parens(150, '(');
  for (int i = 0; i < 150; ++i) {
    open += "{% if true %}";
    close += "{% endif %}";
  }
  EXPECT_EQ(render(open + "x" + close), "x");
  EXPECT_EQ(render("{{ " + parens + "1" + std::string(150, ')') + " }}"), "1");
}

TEST(ChatTemplate, EveryCaseRendersAndEveryCutOfItIsHandled) {
  for (const std::string source : kTemplateCases) {
    EXPECT_TRUE(spans_of(source).ok()) << source << "\n" << spans_of(source).status().to_string();
    for (size_t size = 0; size < source.size(); ++size) {
      const auto spans = spans_of(source.substr(0, size));
      if (!spans.ok()) {
        EXPECT_EQ(spans.status().refusal(), Refusal::kTemplate);
      }
    }
  }
}

}  // namespace
}  // namespace pome
