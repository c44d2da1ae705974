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
    // Macros, calls and blocks.
    "{% macro f(a, b=2, c=b) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, c=5) }}{{ "
    "f() }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, k=3) }}{{ f(*[4], **{'z': "
    "5}) }}",
    "{% macro f(x) %}[{{ caller(x) }}]{% endmacro %}{% call(y) f(7) %}{{ y }}!{% endcall %}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}{{ f }}",
    "{% filter upper | replace('A', 'b') %}a{{ messages[1].content }}{% endfilter %}",
    "{% set x | trim | length %}  four {% endset %}{{ x + 1 }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% set c = 3 %}{% endwith %}{{ c is defined }}",
    "{% generation %}{% set y = 1 %}{{ messages[1].content }}{% endgeneration %}{{ y is defined }}",
    "{% print 1, 2 %}{% block title %}{{ bos_token }}{% endblock title %}",
    "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ "
    "i }}"
    "{% else %}never{% endfor %}",
    "{% for i in [1, [2, [3]]] recursive %}{{ loop.depth }}:{{ loop(i) if i is not number else i "
    "}} "
    "{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if not loop.first }}|{{ loop.nextitem is defined "
    "}}|"
    "{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{{ loop.depth0 }}{% endfor %}",
    "{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}"
    "{% set j = joiner('-') %}{{ j() }}a{{ j() }}b",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}{{ ns }}{% set ns.a, x = 5, 6 %}{{ "
    "ns.a }}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% if 1 < 2 < 3 %}a{% endif %}{{ 1 < 2 > 3 }}{{ 1 == 1 in [1] }}{{ 3 > 2 != 1 }}",
    // Filters.
    "{{ [3, 1, 2] | sort }}{{ ['b', 'A'] | sort }}{{ ['b', 'A'] | sort(case_sensitive=true) }}"
    "{{ [1, 2] | sort(reverse=true) }}{{ messages | sort(attribute='role') | map(attribute='role') "
    "| list }}",
    "{{ [1, 1, 2] | unique | list }}{{ [1, 2, 3] | sum }}{{ [1, 5] | max }}{{ ['b', 'a'] | min }}"
    "{{ [] | max is undefined }}{{ [0.5, 1] | sum }}",
    "{{ messages | groupby('role') | map('first') | list }}{% for g in messages | groupby('role') "
    "%}"
    "{{ g.grouper }}{{ g.list | length }}{% endfor %}",
    "{{ [1, 2, 3] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2) | list }}{{ 'abc' | batch(2) | "
    "list }}",
    "{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'A': 0} | dictsort(by='value') }}"
    "{{ {'a': 1} | items | list }}",
    "{{ [1, 2, 3] | select('odd') | list }}{{ [1, none] | reject('none') | list }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    "{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | join }}",
    "{{ ['a', 'b'] | map('upper') | join('-') }}{{ [[1, 2]] | map('sum') | list }}"
    "{{ [{}] | map(attribute='x', default=3) | list }}",
    "{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.675 | round(2) }}{{ 1234 | round(-2) }}{{ 2.1 | "
    "round(0, 'ceil') }}"
    "{{ 25 | round(-1) }}{{ '42' | int }}{{ '4.7' | int }}{{ 'x' | int(9) }}{{ '0x1F' | int(0, 16) "
    "}}"
    "{{ '1e3' | float }}{{ 'x' | float(1.5) }}{{ -3 | abs }}",
    "{{ 'a b' | urlencode }}{{ {'a': 'ü/'} | urlencode }}{{ '<a&\"\\'>' | e }}{{ ('<' | safe) + "
    "'<' }}"
    "{{ 'x' | center(7) }}|{{ 'a b c' | truncate(3, true, '') }}{{ 'one two' | wordcount }}",
    "{{ 'a\\nb\\n\\nc' | indent(2) }}{{ 'a\\nb' | indent('>', true, true) }}{{ '%s=%d' | "
    "format('a', 3) }}",
    "{{ {'a': [1, 2.0, none, true, 'ü\\n']} | tojson }}{{ {'b': 1, 'a': {}} | tojson(indent=2, "
    "sort_keys=true) }}"
    "{{ ['ü', 1] | tojson(ensure_ascii=true, separators=(',', ':')) }}{{ {1: [], true: 2} | tojson "
    "}}",
    "{{ 1000 | filesizeformat }}{{ 1536 | filesizeformat(true) }}{{ 12 | filesizeformat }}"
    "{{ {'class': 'a b', 'id': none} | xmlattr }}{{ 'abc' | reverse }}{{ [1, 2] | reverse | list "
    "}}",
    "{{ 'x' | default('y') | attr('nothing') is defined }}{{ missing | length }}{{ missing | list "
    "}}",
    // Methods, formats, numbers.
    "{{ 'a-b-c'.rsplit('-', 1) }}{{ 'a-b'.partition('-') }}{{ 'a\\nb'.splitlines() }}{{ "
    "'abc'.find('c') }}"
    "{{ 'aXbX'.count('X') }}{{ 'abc'.removeprefix('a') }}{{ '7'.zfill(3) }}{{ 'ab'.ljust(4, '.') }}"
    "{{ '-'.join(['a', 'b']) }}{{ 'Ab'.swapcase() }}{{ 'straße'.upper() }}{{ 'ß'.casefold() }}",
    "{{ '12'.isdigit() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'Ab'.istitle() }}{{ "
    "'a_1'.isidentifier() }}",
    "{{ '%s %r %5.2f %-4d| %x %%' % ('a', 'b', 3.14159, 7, 255) }}{{ '%(a)s' % {'a': 1} }}",
    "{{ '{} {!r} {:>4} {:04d} {:.2f} {:,}'.format('a', 'b', 'c', 7, 2.5, 12345) }}"
    "{{ '{a.role} {b[0]}'.format(a=messages[0], b=[1]) }}",
    "{{ 7 / 2 }}{{ 7.0 // 2 }}{{ -7.5 % 2 }}{{ 2 ** -1 }}{{ 10 ** 2 }}{{ 1e16 }}{{ 1e-5 }}{{ 0.1 + "
    "0.2 }}"
    "{{ 9007199254740993 == 9007199254740992.0 }}{{ 0x1F + 0b11 + 0o17 + 1_000 }}{{ true + true }}",
    "{{ 'ab' * 3 }}{{ [0] * 2 }}{{ (1,) + (2,) }}{{ range(2, 8, 3) }}{{ range(3)[1:] }}{{ "
    "'abcd'[::-2] }}",
    "{{ [1, (2,), {'k': none}] }}{{ {'a': 'it\\'s \"x\"'} }}{{ ['\\u00ad\\x00é😀'] }}{{ {}.items() "
    "}}",
    "{{ {'a': 1}.keys() }}{{ {'a': 1}.values() }}{{ dict(a=1, **{'b': 2}) }}{{ dict([['x', 1]]) }}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S %j %U %W %V %G %u %a %B %-d %e %I %p %y %%') }}",
    "{{ 1 is sameas 1 }}{{ none is sameas none }}{{ 4 is divisibleby 2 }}{{ 'A' is upper }}{{ 'x' "
    "is in 'xy' }}"
    "{{ range is callable }}{{ 'trim' is filter }}{{ 'odd' is test }}{{ 3 is gt 2 }}{{ [] is "
    "sequence }}",
    "{{ 'ΑΣ ΣΑΣ' | title }}{{ 'ΑΣ'.lower() }}{{ 'ab-cd (eF' | title }}{{ {}.values() in {} }}"
    "{{ 'a' in {'a': 1}.keys() }}{{ ('a', 1) in {'a': 1}.items() }}{{ range(-1)[1::2] }}",
    // Names: what a scope sets is undefined in it until then.
    "{% for m in messages %}{{ bos_token }}{% endfor %}{% set bos_token = 'x' %}{{ bos_token }}",
    "{% for i in [1, 2] %}{{ y }}{% set y = i %}{{ y }}{% endfor %}{{ y }}",
    "{% macro f() %}{{ z }}{% endmacro %}{% set z = 1 %}{{ f() }}{% set z = 2 %}{{ f() }}",
    "{% if false %}{% set eos_token = 'q' %}{% endif %}{{ eos_token }}",
    "{{ 1 if false }}|{{ (1 if false) is defined }}|{{ missing.x if missing }}",
    "{% set a = [1, 2] %}{{ a[0] }}{{ a.0 }}{{ a[-1] }}{{ a['x'] }}{{ a.count(1) }}{{ a.index(2) "
    "}}",
    "line one\r\nline two\r\n",
};

}  // namespace pome
