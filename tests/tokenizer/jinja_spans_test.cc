// What a user typed stays marked through every operation on strings.
//
// The user's text is made of letters that no template here writes (q, x, their capitals, and Ж), so
// that each letter of the output tells where it must have come from.
#include <gtest/gtest.h>

#include <string>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja/text.h"

namespace pome {
namespace {

bool is_user_letter(std::string_view text, size_t at) {
  const char c = text[at];
  // Ж is D0 96, ж is D0 B6; nothing else here has such bytes.
  return c == 'q' || c == 'x' || c == 'Q' || c == 'X' || static_cast<uint8_t>(c) >= 0x80;
}
bool is_template_letter(char c) {
  return (c >= 'a' && c <= 'p') || (c >= 'A' && c <= 'P') || (c >= '0' && c <= '9');
}

// What is wrong with the marks of an expression over u (a text of the user), l (a list of such) and
// d (a dictionary of such). Where the text needs escapes, letters of the template come into it.
std::string wrongly_marked(const std::string& expression, const std::string& user_text,
                           bool escapes) {
  const auto parsed = ChatTemplate::parse("[[{{ " + expression + " }}]]");
  if (!parsed.ok()) return parsed.status().to_string();
  ChatInput input;
  input.variables = {{"u", user_text},
                     {"l", Json::array({"qx", "Xq", "q x"})},
                     {"d", {{"qq", "xx"}, {"xq", Json::array({"x", 1})}}}};
  input.now = 0;
  const auto spans = (*parsed)->render(input, TokenizerSource());
  if (!spans.ok()) return spans.status().to_string();
  bool any = false;
  for (const TemplateSpan& span : *spans) {
    for (size_t i = 0; i < span.text.size(); ++i) {
      const bool user = is_user_letter(span.text, i);
      any = any || user;
      if (user && !span.from_user) return "user text as template text: " + span.text;
      if (!escapes && is_template_letter(span.text[i]) && span.from_user) {
        return "template text as user text: " + span.text;
      }
    }
  }
  return any ? "" : "no user text in " + plain_text(*spans);
}
std::string wrongly_marked(const std::string& expression) {
  const std::string wrong = wrongly_marked(expression, " qx |qж X, q ", false);
  if (!wrong.empty()) return wrong;
  return wrongly_marked(expression, " qx <q|x>\tqж 'Q' \"x\"\nXЖ,q ", true);
}

TEST(JinjaSpans, FiltersKeepTheOrigin) {
  for (const std::string expression : {"u",
                                       "u|string",
                                       "u|trim",
                                       "u|trim(' q')",
                                       "u|upper",
                                       "u|lower",
                                       "u|title",
                                       "u|capitalize",
                                       "u|reverse",
                                       "u|escape",
                                       "u|e",
                                       "u|safe",
                                       "u|forceescape",
                                       "l|first|urlencode",
                                       "d|urlencode",
                                       "u|center(80)",
                                       "u|indent(4)",
                                       "u|indent('ab', true, true)",
                                       "u|truncate(9)",
                                       "u|truncate(9, true, 'ab', 0)",
                                       "u|replace('q', 'ab')",
                                       "u|replace(' ', 'ab', 2)",
                                       "'abc'|replace('b', u)",
                                       "u|replace('', 'a')",
                                       "u|format",
                                       "'a%sb%sc'|format(u, l[0])",
                                       "'%r'|format(u)",
                                       "'a%(qq)sb'|format(**d)",
                                       "u|tojson",
                                       "l|tojson",
                                       "d|tojson(indent=2)",
                                       "d|tojson(sort_keys=true, separators=(';', '='))",
                                       "u|tojson(ensure_ascii=false)",
                                       "l|join",
                                       "l|join('ab')",
                                       "'abc'|join(u)",
                                       "l|first",
                                       "l|last",
                                       "u|first ~ u[1]",
                                       "u|list",
                                       "l|sort",
                                       "l|sort(reverse=true)|join",
                                       "l|unique|list",
                                       "l|min",
                                       "l|max",
                                       "l|reverse|list",
                                       "l|map('upper')|list",
                                       "l|map('replace', 'q', 'ab')|join",
                                       "l|select('string')|list",
                                       "l|reject('none')|list",
                                       "l|batch(2, 'ab')|list",
                                       "l|slice(2)|list",
                                       "d|dictsort",
                                       "d|items|list",
                                       "d|xmlattr",
                                       "l|groupby(0)|list",
                                       "[d]|map(attribute='qq')|list",
                                       "[d]|selectattr('qq')|list",
                                       "missing|default(u)",
                                       "u|default('a')",
                                       "d|list",
                                       "[d]|sum(attribute='xq', start=[])"}) {
    EXPECT_EQ(wrongly_marked(expression), "") << expression;
  }
}

TEST(JinjaSpans, MethodsKeepTheOrigin) {
  for (const std::string expression : {"u.strip()",
                                       "u.lstrip()",
                                       "u.rstrip('q ')",
                                       "u.upper()",
                                       "u.lower()",
                                       "u.title()",
                                       "u.capitalize()",
                                       "u.swapcase()",
                                       "u.casefold()",
                                       "u.center(80, 'a')",
                                       "u.ljust(80, 'a')",
                                       "u.rjust(80, 'a')",
                                       "u.zfill(80)",
                                       "u.expandtabs(3)",
                                       "u.replace('q', 'ab')",
                                       "u.replace('x', 'ab', 1)",
                                       "'abc'.replace('b', u)",
                                       "u.split()",
                                       "u.split(',')",
                                       "u.split(None, 1)",
                                       "u.rsplit(' ', 1)",
                                       "u.splitlines()",
                                       "u.splitlines(true)",
                                       "u.partition('|')",
                                       "u.rpartition('|')",
                                       "u.partition('ab')",
                                       "u.removeprefix(' q')",
                                       "u.removesuffix('q ')",
                                       "u.join(['a', 'b'])",
                                       "'a'.join(l)",
                                       "u.join('ab')",
                                       "'a{}b{}'.format(u, l[1])",
                                       "'{0:*>40}b'.format(u)",
                                       "'{x!r:.9}'.format(x=u)",
                                       "'{0[qq]}a{0[xq][0]}'.format(d)",
                                       "(u ~ '{}').format('ab')",
                                       "'{qq}a'.format_map(d)",
                                       "d.get('qq')",
                                       "d.get('a', u)",
                                       "d.keys()|list",
                                       "d.values()|list",
                                       "d.items()|list",
                                       "d.copy()",
                                       "l.copy()"}) {
    EXPECT_EQ(wrongly_marked(expression), "") << expression;
  }
}

TEST(JinjaSpans, OperatorsKeepTheOrigin) {
  for (const std::string expression : {"'a' + u + 'b'",
                                       "'a' ~ u ~ 1",
                                       "u * 2",
                                       "2 * u",
                                       "u[1:5]",
                                       "u[::-1]",
                                       "u[1]",
                                       "u[::2]",
                                       "'a%sb' % u",
                                       "'%5s|%-9s|%r' % (u, l[0], u)",
                                       "'%(qq)s' % d",
                                       "u % ()",
                                       "l",
                                       "d",
                                       "(u,)",
                                       "{'a': u}",
                                       "{u: 'a'}",
                                       "l + ['a']",
                                       "l * 2",
                                       "u if true else 'a'",
                                       "u or 'a'",
                                       "'a' and u",
                                       "dict(a=u)",
                                       "namespace(a=u)",
                                       "namespace(a=u).a",
                                       "u|safe + '<a>'",
                                       "('<a>'|safe) + u"}) {
    EXPECT_EQ(wrongly_marked(expression), "") << expression;
  }
}

TEST(JinjaSpans, StatementsKeepTheOrigin) {
  for (const std::string rest :
       {"{% set y %}a{{ u }}b{% endset %}{{ y }}", "{% set y | upper %}a{{ u }}{% endset %}{{ y }}",
        "{% filter upper %}a{{ u }}b{% endfilter %}", "{% for c in u %}{{ c }}a{% endfor %}",
        "{% for k, v in d.items() %}{{ k }}a{{ v }}{% endfor %}",
        "{% macro f(a, b='ab') %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}"
        "{{ f(u, 'a', l, e=u) }}",
        "{% macro f() %}a{{ caller(u) }}{% endmacro %}{% call(v) f() %}{{ v }}b{% endcall %}",
        "{% with y = u %}{{ y }}a{% endwith %}", "{% generation %}{{ u }}{% endgeneration %}",
        "{% set n = namespace(a='a') %}{% for i in l %}{% set n.a = n.a ~ i %}{% endfor %}{{ n.a "
        "}}",
        "{% for i in [l, [u]] recursive %}{{ loop(i) if i is not string else i }}{% endfor %}",
        "{% set j = joiner(u) %}{% for i in l %}{{ j() }}a{{ i }}{% endfor %}",
        "{% set y = cycler('a', u) %}{{ y.next() }}{{ y.next() }}"}) {
    EXPECT_EQ(wrongly_marked("'a' }}" + rest + "{{ 'a'"), "") << rest;
  }
}

TEST(JinjaSpans, NumbersOfTheUserAreNoText) {
  // What is computed is not text that was typed, and can be no special token.
  const auto parsed = ChatTemplate::parse("{{ messages[0].content + 1 }}");
  ASSERT_TRUE(parsed.ok());
  ChatInput input;
  input.messages = Json::parse(R"([{"role": "user", "content": 41}])");
  const auto spans = (*parsed)->render(input, TokenizerSource());
  ASSERT_TRUE(spans.ok()) << spans.status().to_string();
  EXPECT_EQ(plain_text(*spans), "42");
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
  EXPECT_TRUE(text.is_user_at(2));
  EXPECT_FALSE(text.is_user_at(4));
}

}  // namespace
}  // namespace pome
