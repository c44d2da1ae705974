// Templates over two messages (user "  Hi there ", assistant "Fine.") with what they use of the
// language; the oracle test renders the same ones with Jinja.
#pragma once

namespace pome {

inline constexpr const char* kTemplateCases[] = {
    "plain text",
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}"
    "{{ loop.length }}{{ loop.revindex }}{{ loop.previtem is defined }} {% endfor %}",
    "{%- for m in messages -%}\n  {{ m.role }}\n{%- endfor -%}\n  end",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "a\n  {#- comment -#}\n b {# another #}\nc",
    "{# first #}\n{# second #}\n  {% set x = 1 %}\n{{ x }}\n\n",
    "  {%+ if true %} keeps {% endif +%}\n end",
    "{% raw %}{{ not this }}{% endraw %} but {{ 'this' }}",
    "{% raw -%}  x  {%- endraw %}\n  y",
    "{% set a = 'x' %}{% set b, c = 1, 2 %}{{ a ~ b ~ c }}{{ a + 'y' }}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}{{ "
    "ns.n }}",
    "{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}",
    "{% for m in messages if m.role == 'user' %}{{ m.content }}{{ loop.length }}{% else %}none"
    "{% endfor %}{% for m in [] %}{% else %}empty{% endfor %}",
    "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}-{{ b }};{% endfor %}",
    "{% for k, v in {'a': 1, 'b': none}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{{ messages | length }}{{ messages[0].content|length }}{{ messages[-1].role }}",
    "{% for m in messages[1:] %}{{ m.role }}{% endfor %}{{ 'abcdef'[1:-1] }}{{ 'abc'[5:] }}"
    "{{ [1,2,3,4][::-1] }}{{ [1,2,3,4][::2] }}{{ [1,2,3][:-1] }}{{ [1,2,3][-2:] }}",
    "{{ missing }}|{{ missing | default('d') }}|{{ '' | default('e', true) }}|{{ none | "
    "default('n') }}",
    "{{ missing is defined }}{{ messages is defined }}{{ none is none }}{{ 1 is number }}"
    "{{ 'a' is string }}{{ [] is iterable }}{{ {} is mapping }}{{ missing is not defined }}",
    "{{ 'a' in 'cat' }}{{ 'role' in messages[0] }}{{ 3 not in [1, 2] }}{{ 'x' is in ['x'] }}",
    "{{ 1 + 2 * 3 - 4 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ -7 % 3 }}{{ 2 ** 5 }}{{ 7 / 2 }}"
    "{{ 6 / 2 }}{{ 1.5 + 1 }}{{ 1e3 }}{{ 0.1 + 0.2 }}",
    "{{ 1 < 2 }}{{ 'a' < 'b' }}{{ 2 >= 2.0 }}{{ 1 == 1.0 }}{{ 'a' != 'b' }}{{ [1] == [1] }}{{ true "
    "== 1 }}",
    "{{ true and 'x' }}{{ '' or 'y' }}{{ not '' }}{{ not true and false }}{{ 1 if false else 2 }}|"
    "{{ 1 if false }}|",
    "{{ messages[0].content.strip() }}|{{ messages[0]['content'].lstrip() }}|"
    "{{ messages[0].content.rstrip() }}|{{ 'xxaxx'.strip('x') }}",
    "{{ 'Hello World'.upper() }}{{ 'ÄB' | lower }}{{ 'hello world'.title() }}{{ "
    "'HELLO'.capitalize() }}",
    "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a-b-c'.split('-', 1) }}{{ "
    "'abc'.split('b')[-1] }}",
    "{{ 'abcabc'.replace('b', 'XX') }}{{ 'aaa'.replace('a', 'b', 2) }}{{ 'abc'.startswith('ab') }}"
    "{{ 'abc'.endswith('bc') }}{{ 'abc'.startswith(('x', 'a')) }}",
    "{{ ['a', 'b'] | join(', ') }}{{ [1, 2] | join }}{{ 'abc' | join('-') }}{{ ['x'] | first }}"
    "{{ [1, 2] | last }}{{ 5 | string + 'a' }}",
    "{{ [1, 'a', none, true, 1.0, {'k': \"it's\"}] }}{{ {'a': [1]} }}{{ (1, 2)[1] }}",
    "{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 'd') }}"
    "{{ {'a': 1}.keys() | list }}{{ {'a': 1}.values() | list }}",
    "{% set x %}block {{ 1 }}{% endset %}[{{ x }}]",
    "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(5, 1, -2) | list }}",
    "{% if 0 %}a{% elif [] %}b{% elif 'x' %}c{% else %}d{% endif %}",
    "{{ 'esc: \\n\\t\\'\\\\ \\u00e9 \\x41' }}{{ \"double 'quoted'\" }}{{ 'con' 'cat' }}",
    "{{ -1 }}{{ - 2 + 3 }}{{ (1, 2) | length }}{{ 'a' ~ 1 ~ none ~ true }}",
    "{{ 'é你'[1] }}{{ 'é你' | length }}{% for c in 'é你' %}{{ c }}.{% endfor %}",
    "{{ messages[5] is defined }}{{ messages[0].nothing }}{{ messages[0].nothing is none }}",
    "{{ '  a ' | trim | upper }}{{ 'a' if 'b' is string else 'c' }}{{ 4 is even }}{{ 3 is odd }}",
    "line one\r\nline two\r\n",
};

}  // namespace pome
