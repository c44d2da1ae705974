// Hostile templates are refused in bounded time and memory.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tokenizer/chat_template.h"

namespace pome {
namespace {

std::string repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

Result<std::vector<TemplateSpan>> render(const std::string& source) {
  const auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  ChatInput input;
  input.messages = Json::array({{{"role", "user"}, {"content", std::string(50000, 'u')}}});
  input.now = 0;
  return (*parsed)->render(input, TokenizerSource());
}

void expect_refused(const std::string& source) {
  const auto start = std::chrono::steady_clock::now();
  const auto spans = render(source);
  EXPECT_EQ(spans.status().refusal(), Refusal::kTemplate) << source.substr(0, 200);
  EXPECT_EQ(spans.status().where().substr(0, 5), "line ") << source.substr(0, 200);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 10.0) << source.substr(0, 200);
}

TEST(JinjaLimits, DeepNesting) {
  for (const std::string& source :
       std::vector<std::string>{repeat("{% if true %}", 100000),
                                repeat("{% for a in [1] %}", 100000),
                                repeat("{% macro f() %}", 100000),
                                repeat("{% set a %}", 100000),
                                repeat("{% filter upper %}", 100000),
                                repeat("{% with %}", 100000),
                                repeat("{% call f() %}", 100000),
                                "{{ " + repeat("(", 100000),
                                "{{ " + repeat("[", 100000),
                                "{{ " + repeat("{1:", 100000),
                                "{{ " + repeat("a(", 100000),
                                "{{ " + repeat("a[", 100000),
                                "{{ " + repeat("not ", 100000),
                                "{{ " + repeat("-", 100000) + "1 }}",
                                "{{ " + repeat("a|trim(", 100000),
                                "{{ " + repeat("a is in(", 100000),
                                "{{ " + repeat("1 if 1 else ", 100000) + "1 }}",
                                "{{ 1" + repeat(" if 1", 100000) + " }}",
                                "{% set " + repeat("(", 100000),
                                "{% if 0 %}" + repeat("{% elif 0 %}", 100000) + "{% endif",
                                std::string(2 << 20, 'x')}) {
    expect_refused(source);
  }
}

TEST(JinjaLimits, LongFlatCodeIsNotNested) {
  for (const std::string& source : std::vector<std::string>{
           "{{ 1" + repeat(" + 1", 100000) + " }}", "{{ 'a'" + repeat("|trim", 10000) + " }}",
           "{{ 'a'" + repeat(" ~ 'a'", 100000) + " }}", "{{ 1" + repeat(" and 1", 100000) + " }}",
           "{{ 1" + repeat(" < 2", 1) + repeat(" == 2", 10000) + " }}",
           "{{ [" + repeat("1,", 100000) + "] | length }}",
           "{% if 0 %}" + repeat("{% elif 0 %}", 10000) + "{% endif %}",
           repeat("{% if true %}{% endif %}", 10000)}) {
    EXPECT_TRUE(render(source).ok())
        << source.substr(0, 100) << render(source).status().to_string();
  }
}

TEST(JinjaLimits, Loops) {
  for (const std::string source :
       {"{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% for c in messages[0].content %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = messages[0].content.upper() %}{% endfor %}",
        "{% for i in range(100000) %}{% if 'v' in messages[0].content %}{% endif %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = messages[0].content|length %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = messages[0].content.split('u') %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = messages[0].content.find('v') %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 10 }}"
        "{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(1000)|sort %}{% endfor %}{% endfor %}"}) {
    expect_refused(source);
  }
}

TEST(JinjaLimits, Recursion) {
  for (const std::string source :
       {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) "
        "}}",
        "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for i in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% endfor %}",
        "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n.x }}"}) {
    expect_refused(source);
  }
}

TEST(JinjaLimits, LongChainsAreFreedWithoutRecursion) {
  for (const std::string source :
       {"{% set o = namespace(n=0) %}{% for i in range(50000) %}{% set o.n = namespace(p=o.n) %}"
        "{% endfor %}",
        "{% set o = namespace(n=0) %}{% for i in range(50000) %}{% for j in [o.n] %}"
        "{% set o.n = loop %}{% endfor %}{% endfor %}",
        "{% set o = namespace(n=0) %}{% for i in range(50000) %}{% set o.n = cycler(o.n) %}"
        "{% endfor %}"}) {
    EXPECT_TRUE(render(source).ok()) << render(source).status().to_string();
  }
}

TEST(JinjaLimits, Growth) {
  const std::string doubling = "{% for i in range(100) %}{% set n.x = ";
  const std::string end = " %}{% endfor %}";
  for (const std::string& source : std::vector<std::string>{
           "{% set n = namespace(x='ab') %}" + doubling + "n.x + n.x" + end,
           "{% set n = namespace(x='ab') %}" + doubling + "n.x ~ n.x" + end,
           "{% set n = namespace(x=[1]) %}" + doubling + "n.x + n.x" + end,
           "{% set n = namespace(x=[1]) %}" + doubling + "[n.x, n.x]" + end + "{{ n.x }}",
           "{% set n = namespace(x=[1]) %}" + doubling + "[n.x, n.x]" + end + "{{ n.x|tojson }}",
           "{% set n = namespace(x=[1], y=[1]) %}" + doubling +
               "[n.x, n.x] %}{% set n.y = [n.y, n.y]" + end + "{{ n.x == n.y }}",
           "{% set n = namespace(x='a') %}" + doubling + "n.x.replace('a', 'aaaaaaaa')" + end,
           "{% set n = namespace(x='a') %}" + doubling + "'%s%s' % (n.x, n.x)" + end,
           "{% set n = namespace(x='a') %}" + doubling + "'{0}{0}'.format(n.x)" + end,
           "{% set n = namespace(x='<') %}" + doubling + "n.x|forceescape ~ n.x" + end,
           "{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = n.l + "
           "['aaaaaaaaaaaaaaaaaaaaa' ~ i] %}{% endfor %}",
           "{% set n = namespace(l=0) %}{% for i in range(100000) %}{% set n.l = namespace(a=n.l, "
           "b=range(100)|list) %}{% endfor %}"}) {
    expect_refused(source);
  }
  for (const std::string expression :
       {"'a' * 10**9",
        "[1] * 10**9",
        "10**9 * 'ab'",
        "'%1000000000d' % 1",
        "'%.1000000000f' % 1.5",
        "'%*d' % (10**9, 1)",
        "'{:>1000000000}'.format(1)",
        "'a'.center(10**12)",
        "'a'|center(10**12)",
        "'a'.zfill(10**12)",
        "'a'.ljust(10**9)",
        "'a'|indent(10**9, true)",
        "('\\t' * 100000).expandtabs(10**9)",
        "[1]|batch(10**12, 0)|list",
        "[1]|slice(10**9)|list",
        "[1]|tojson(indent=10**9)",
        "range(10**12)",
        "range(0, 0 - 10**12, -1)|list",
        "('a' * 10**7)|list",
        "('a ' * 10**6).split()",
        "('a' * 10**7).split('a')",
        "('a' * 10**7)|replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')",
        "2 ** 10**9",
        "10 ** 400",
        "9223372036854775807 + 1",
        "(2**62)|int * 4",
        "1e308 ** 2"}) {
    expect_refused("{{ " + expression + " }}");
  }
}

}  // namespace
}  // namespace pome
