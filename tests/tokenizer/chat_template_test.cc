#include "tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tokenizer/jinja/value.h"
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
      {"{{ nofunction() }}", "line 1 column 14", "unknown function \"nofunction\""},
      {"\n\n{% notag %}", "line 3 column 4", "unknown tag \"notag\""},
      {"{{ 'a'.nomethod() }}", "line 1 column 16", "unknown function \"nomethod\""},
      {"{{ missing.field }}", "line 1 column 11", "\"missing\" is undefined"},
      {"{{ raise_exception('no ' ~ 'way') }}", "line 1 column 19", "the template says: no way"},
      {"{% if true %}", "line 1 column 4", "block without endif"},
      {"{% for a in b %}{% endif %}", "line 1 column 20", "unknown tag \"endif\""},
      {"{{ 'open }}", "line 1 column 4", "string without closing quote"},
      {"{{ 1 + }}", "line 1 column 8", "unexpected \"}}\""},
      {"{{ (1 }}", "line 1 column 1", "tag without }}"},
      {"{# open", "line 1 column 1", "comment without #}"},
      {"{{ 1 + 'a' }}", "line 1 column 6", "\"+\" between integer and string"},
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

TEST(ChatTemplate, HostileTemplatesEndSoon) {
  const auto repeat = [](const std::string& text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += text;
    return out;
  };
  const std::string cases[] = {
      "{% for i in range(10**9) %}{% endfor %}",
      "{% for i in range(25000) %}{% for j in range(25000) %}{% endfor %}{% endfor %}",
      "{% for i in range(25000) %}{% for j in messages[0].content * 3 %}{% endfor %}{% endfor %}",
      "{% set n = namespace(x='ab') %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor "
      "%}",
      "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor "
      "%}",
      "{% set n = namespace(x=[1]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% endfor %}",
      "{% set n = namespace(x=[1]) %}{% for i in range(150) %}{% set n.x = [n.x, n.x] %}{% endfor "
      "%}{{ n.x }}",
      "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(150) %}{% set n.x = [n.x, n.x] %}"
      "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
      "{% set n = namespace() %}{% set n.x = n %}",
      "{% set n = namespace() %}{% set n.x = [n] %}",
      "{% set x = 'a' %}{% for i in range(30) %}{% set x = x.replace('a', 'aaaaaaaa') %}{{ x }}{% "
      "endfor %}{% set n = namespace(x='a') %}{% for i in range(30) %}{% set n.x = "
      "n.x.replace('a', 'aaaaaaaa') %}{% endfor %}",
      "{% for i in range(1000000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% "
      "endfor %}",
      repeat("{% if true %}", 100000),
      repeat("{% for a in [1] %}", 100000),
      "{{ " + repeat("(", 100000),
      "{{ " + repeat("[", 100000),
      "{{ " + repeat("not ", 100000),
      "{{ " + repeat("-", 100000) + "1 }}",
      "{{ 1" + repeat(" + 1", 100000) + " }}",
      "{{ 'a'" + repeat("|trim", 100000) + " }}",
      "{{ 'a'" + repeat(".a", 100000) + " }}",
      "{{ 1" + repeat(" if 1 else 1", 10000) + " }}",
      "{% if 0 %}" + repeat("{% elif 0 %}", 100000) + "{% endif",
      std::string(2 << 20, 'x'),
  };
  for (const std::string& source : cases) {
    const auto start = std::chrono::steady_clock::now();
    const Status status = error(source);
    EXPECT_EQ(status.refusal(), Refusal::kTemplate) << source.substr(0, 200);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 10.0) << source.substr(0, 200);
  }
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

TEST(JinjaText, RunsSurviveSlicing) {
  using jinja::Text;
  Text text("ab");
  text.append("cd", true);
  text.append("ef", false);
  text.append("gh", false);
  EXPECT_EQ(text.runs().size(), 3u);
  const Text part = text.slice(1, 5);
  EXPECT_EQ(part.bytes(), "bcde");
  ASSERT_EQ(part.runs().size(), 3u);
  EXPECT_TRUE(part.runs()[1].from_user);
  EXPECT_EQ(text.slice(3, 3).runs().size(), 0u);
}

}  // namespace
}  // namespace pome
