"""Random small templates and the variables they are rendered with. Most are meaningful; some fail on purpose."""
import random

STRINGS = ['', 'a', 'abc', ' Hi there ', 'Ünï ß Straße', 'a,b,,c', 'x\ny\n', "it's", 'say "no"', '<b>&amp;', 'ΑΣ ΣΑΣ', 'Ǆ ǆ',
           '日本語 text', '😀!', 'one two  three', '-42', '3.5', '%s', '{}', 'A-b (c)', '\t tab', '٣', '½', 'é']
NAMES = ['s', 't', 'n', 'm', 'f', 'b', 'none_value', 'l', 'ls', 'd', 'dl', 'nested', 'missing', 'messages', 'e', 'big']
TEXTS = ['text', ' ', '\n', '  \n  ', 'a\n  b', '<|x|>', '\n\n', 'é', '{ }', '%', '#']
TESTS = ['defined', 'undefined', 'none', 'string', 'number', 'integer', 'float', 'boolean', 'true', 'false', 'mapping',
         'sequence', 'iterable', 'callable', 'odd', 'even', 'lower', 'upper', 'escaped']
COMPARE_TESTS = ['eq', 'ne', 'lt', 'le', 'gt', 'ge', 'equalto', 'in', 'divisibleby', 'sameas', 'greaterthan', 'lessthan']


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = list(NAMES)
        self.macros = []
        self.loops = 0

    def one(self, *choices):
        return self.random.choice(choices)

    def maybe(self, probability):
        return self.random.random() < probability

    def variables(self):
        r = self.random
        return {
            's': r.choice(STRINGS), 't': r.choice(STRINGS), 'n': r.randrange(-5, 12), 'm': r.randrange(0, 4),
            'f': r.choice([0.0, 1.5, -2.25, 1e20, 1e-7, 3.0, 0.1, 2.675, 1234.5678]), 'b': r.random() < 0.5,
            'none_value': None, 'l': [r.randrange(-3, 6) for _ in range(r.randrange(5))],
            'ls': [r.choice(STRINGS) for _ in range(r.randrange(4))],
            'd': {k: r.choice([1, 'v', None, [1, 2], 2.5, True]) for k in r.sample(['a', 'b', 'C', 'key', 'items'], r.randrange(5))},
            'dl': [{'a': r.randrange(3), 'b': r.choice(STRINGS), 'c': {'x': r.randrange(2)}} for _ in range(r.randrange(4))],
            'nested': [[1, [2, 3]], {'k': [{'z': None}]}, r.choice(STRINGS)], 'e': [], 'big': 1 << r.randrange(40, 62),
            'messages': [{'role': r.choice(['user', 'assistant']), 'content': r.choice(STRINGS)} for _ in range(r.randrange(4))],
        }

    # --- expressions ---

    def literal_string(self):
        text = self.random.choice(STRINGS)
        quote = self.one('"', "'")
        text = text.replace('\\', '\\\\').replace(quote, '\\' + quote).replace('\n', '\\n').replace('\t', self.one('\\t', '\t'))
        return quote + text + quote

    def integer(self, depth):
        if depth <= 0 or self.maybe(0.5):
            return self.one(str(self.random.randrange(-3, 8)), 'n', 'm', str(self.random.randrange(0, 3)))
        return self.one(
            lambda: '(%s %s %s)' % (self.integer(depth - 1), self.one('+', '-', '*', '//', '%'), self.integer(depth - 1)),
            lambda: '%s|length' % self.sequence(depth - 1),
            lambda: '%s|int' % self.any(depth - 1),
            lambda: '%s.%s(%s)' % (self.atom(depth - 1), self.one('find', 'count', 'rfind'), self.string(0)),
            lambda: '%s|sum' % self.one('l', '[1, 2]', '[0.5, 1]'),
            lambda: '%s|%s' % (self.integer(depth - 1), self.one('abs', 'round', 'round(1)', "round(0, 'floor')")),
            lambda: '%s|wordcount' % self.string(depth - 1))()

    def number(self, depth):
        if self.maybe(0.6):
            return self.integer(depth)
        return self.one(
            lambda: 'f',
            lambda: self.one('1.5', '0.1', '2e3', '7.0', '1_000', '0x1F'),
            lambda: '(%s / %s)' % (self.number(depth - 1), self.number(depth - 1)) if depth > 0 else '2.5',
            lambda: '%s|float' % self.any(depth - 1) if depth > 0 else '.5|float' if self.maybe(0.1) else '1.25',
            lambda: '%s|round(%d%s)' % (self.one('f', '2.5', '1234.5', '0.15'), self.random.randrange(-2, 4),
                                        self.one('', '', ", 'ceil'", ", 'floor'")),
            lambda: '(%s ** %s)' % (self.one('2', 'm', '1.5', 'n'), self.one('2', '3', 'm', '-1')))()

    def string(self, depth):
        if depth <= 0 or self.maybe(0.35):
            return self.one(self.literal_string(), 's', 't', self.literal_string())
        d = depth - 1
        return self.one(
            lambda: '(%s ~ %s)' % (self.any(d), self.any(d)),
            lambda: '(%s + %s)' % (self.string(d), self.string(d)),
            lambda: '(%s * %s)' % (self.string(d), self.one('2', 'm', '0', '-1')),
            lambda: '%s|%s' % (self.string(d), self.one('upper', 'lower', 'title', 'capitalize', 'trim', 'string', 'escape', 'e',
                                                        'safe', 'urlencode', 'forceescape', 'reverse', "trim('a')")),
            lambda: '%s.%s()' % (self.atom(d), self.one('upper', 'lower', 'title', 'capitalize', 'strip', 'lstrip', 'rstrip',
                                                          'swapcase', 'casefold', 'expandtabs')),
            lambda: '%s.%s(%s)' % (self.atom(d), self.one('strip', 'lstrip', 'rstrip', 'removeprefix', 'removesuffix'),
                                   self.literal_string()),
            lambda: '%s.%s(%d%s)' % (self.atom(d), self.one('center', 'ljust', 'rjust'), self.random.randrange(0, 12),
                                     self.one('', ", '*'")),
            lambda: '%s.zfill(%d)' % (self.atom(d), self.random.randrange(0, 9)),
            lambda: '%s|replace(%s, %s%s)' % (self.string(d), self.string(0), self.string(0), self.one('', '', ', 1')),
            lambda: '%s.replace(%s, %s%s)' % (self.atom(d), self.string(0), self.string(0), self.one('', '', ', 2')),
            lambda: '%s|join(%s)' % (self.sequence(d), self.literal_string()),
            lambda: '%s.join(%s)' % (self.literal_string(), self.one('ls', 's', "['a', 'b']", self.sequence(d))),
            lambda: '%s[%s]' % (self.atom(d), self.slice()),
            lambda: '%s[%s]' % (self.atom(d), self.integer(0)),
            lambda: '%s|%s' % (self.string(d), self.one('indent', 'indent(2)', "indent('> ', true)", 'indent(3, blank=true)')),
            lambda: '%s|truncate(%s)' % (self.string(d), self.one('5', '4, true', "6, false, '.', 0", '3')),
            lambda: '%s|center(%d)' % (self.string(d), self.random.randrange(0, 14)),
            lambda: '%s|tojson%s' % (self.any(d), self.one('', '', '(indent=2)', '(ensure_ascii=true)', "(separators=(',', ':'))",
                                                           '(sort_keys=true)', '(indent=1, sort_keys=true)')),
            lambda: '(%s %% %s)' % (self.one("'%s'", "'<%5s|%-5s>'", "'%d'", "'%05.1f'", "'%x %%'", "'%r'", "'%(a)s'", "'%+d'"),
                                    self.one(self.any(d), '(%s, %s)' % (self.any(d), self.any(d)), 'd', 'n')),
            lambda: '%s|format(%s)' % (self.one("'%s-%s'", "'%s'", "'%.2f'", "'%3d|'"),
                                       self.one(self.any(d), '%s, %s' % (self.any(d), self.any(d)))),
            lambda: '%s.format(%s)' % (self.one("'{}'", "'{0}{0}'", "'{:>6}'", "'{:04d}'", "'{!r}'", "'{:.2f}'", "'{x}'", "'{0[0]}'",
                                                "'{:,}'", "'{:^7}|'", "'{:x}'", "'{{}}{}'", "'{:*<8}'", "'{:e}'", "'{:%}'"),
                                       self.one(self.any(d), 'x=' + self.any(d), self.number(d))),
            lambda: 'strftime_now(%s)' % self.one("'%Y-%m-%d'", "'%d %b %Y'", "'%A %B %-d, %H:%M:%S'", "'%j %U %w %y %I %p %%'"))()

    def atom(self, depth):
        """A string that methods and subscripts may follow."""
        text = self.string(depth)
        return '(' + text + ')' if '|' in text or '%' in text or '~' in text else text

    def slice(self):
        part = lambda: self.one('', '', str(self.random.randrange(-4, 5)))
        return part() + ':' + part() + self.one('', '', ':' + self.one('', '1', '2', '-1', '-2'))

    def sequence(self, depth):
        if depth <= 0 or self.maybe(0.3):
            return self.one('l', 'ls', 'dl', 'e', 'messages', '[1, 2, 3]', "('a', 'b')", 'range(4)', 'nested', "['b', 'A', 'c']")
        d = depth - 1
        return self.one(
            lambda: '[%s]' % ', '.join(self.any(d) for _ in range(self.random.randrange(4))),
            lambda: '(%s,)' % self.any(d),
            lambda: '(%s)[%s]' % (self.sequence(d), self.slice()),
            lambda: '(%s + %s)' % (self.sequence(d), self.sequence(d)),
            lambda: '(%s * 2)' % self.sequence(d),
            lambda: 'range(%s)' % self.one('m', '2, 5', '5, 0, -2', 'n', '0, 6, 2'),
            lambda: '%s.split(%s)' % (self.atom(d), self.one('', self.literal_string(), "','", "',', 1")),
            lambda: '%s.%s' % (self.atom(d), self.one('splitlines()', 'splitlines(true)', "rsplit('a', 1)", 'rsplit()',
                                                        "partition('b')", "rpartition(',')", 'split(none, 1)')),
            lambda: '%s|%s' % (self.sequence(d), self.one('list', 'sort', 'sort(reverse=true)', 'unique|list', 'reverse|list',
                                                          'batch(2)|list', "batch(2, 'x')|list", 'slice(2)|list', "slice(3, 0)|list",
                                                          'map("upper")|list', "map('string')|list", 'select|list', 'reject|list',
                                                          "select('odd')|list", "reject('string')|list", "select('gt', 1)|list",
                                                          "map('int')|sort", 'sort(case_sensitive=true)', "map('length')|list")),
            lambda: 'dl|%s' % self.one("map(attribute='a')|list", "map(attribute='c.x')|list", "selectattr('a')|list",
                                       "selectattr('a', 'eq', 1)|list", "rejectattr('b', 'string')|list", "sort(attribute='b')",
                                       "sort(attribute='a,b')", "groupby('a')", "groupby('c.x')|list", "unique(attribute='a')|list",
                                       "map(attribute='q', default='-')|list", "selectattr('q', 'defined')|list",
                                       "sum(attribute='a')", "join('/', attribute='b')", "max(attribute='a')", "groupby('q', default=9)"),
            lambda: 'd%s' % self.one('.items()', '.keys()', '.values()', '|dictsort', '|items|list', '|list', '.items()|list',
                                     "|dictsort(false, 'value')", '|dictsort(reverse=true)'))()

    def mapping(self, depth):
        if depth <= 0 or self.maybe(0.4):
            return self.one('d', '{}', "{'a': 1, 'b': 'x'}", '{1: 2}')
        return self.one(
            lambda: '{%s}' % ', '.join('%s: %s' % (self.one(self.literal_string(), 'n', "'k'"), self.any(depth - 1))
                                       for _ in range(self.random.randrange(4))),
            lambda: 'dict(a=%s, b=%s)' % (self.any(depth - 1), self.any(depth - 1)),
            lambda: 'dl[0]', lambda: 'dict(d, z=1)', lambda: 'd.copy()', lambda: 'messages[0]')()

    def boolean(self, depth):
        if depth <= 0:
            return self.one('true', 'false', 'b', 'True', 'none')
        d = depth - 1
        return self.one(
            lambda: '%s is %s%s' % (self.any(d), self.one('', 'not '), self.random.choice(TESTS)),
            lambda: '%s is %s%s(%s)' % (self.any(d), self.one('', 'not '), self.random.choice(COMPARE_TESTS), self.any(d)),
            lambda: '%s is divisibleby %s' % (self.integer(d), self.one('2', '3', 'm')),
            lambda: '(%s %s %s)' % (self.any(d), self.one('==', '!='), self.any(d)),
            lambda: '(%s %s %s)' % (self.number(d), self.one('<', '>', '<=', '>=', '=='), self.number(d)),
            lambda: '(%s < %s <= %s)' % (self.integer(d), self.integer(d), self.integer(d)),
            lambda: '(%s %s %s)' % (self.string(d), self.one('<', '>', 'in', 'not in'), self.string(d)),
            lambda: '(%s %s %s)' % (self.any(d), self.one('in', 'not in'), self.one(self.sequence(d), self.mapping(d))),
            lambda: '(not %s)' % self.any(d),
            lambda: '(%s %s %s)' % (self.any(d), self.one('and', 'or'), self.any(d)),
            lambda: '%s.%s(%s)' % (self.atom(d), self.one('startswith', 'endswith'), self.string(0)),
            lambda: '%s.%s()' % (self.atom(d), self.one('isdigit', 'isalpha', 'isalnum', 'isspace', 'islower', 'isupper', 'istitle',
                                                          'isnumeric', 'isdecimal', 'isascii', 'isidentifier', 'isprintable')),
            lambda: "%s is %s" % (self.one("'upper'", "'nofilter'"), self.one('filter', 'test')))()

    def any(self, depth):
        if self.maybe(0.12):
            return self.random.choice(self.names)
        if depth > 0 and self.maybe(0.12):
            d = depth - 1
            return self.one(
                lambda: '(%s if %s%s)' % (self.any(d), self.boolean(d), self.one('', ' else ' + self.any(d), ' else ' + self.any(d))),
                lambda: '%s|default(%s%s)' % (self.any(d), self.any(d), self.one('', ', true')),
                lambda: '%s[%s]' % (self.one('d', 'dl', 'nested', 'l', 'messages'), self.one("'a'", '0', '-1', "'items'", self.any(d))),
                lambda: '%s.%s' % (self.one('d', 'dl[0]', 'dl', 'messages[0]'), self.one('a', 'c.x', 'key', 'items', 'content')),
                lambda: 'd.get(%s)' % self.one("'a'", "'q'", "'q', 5", self.any(d)),
                lambda: '%s|%s' % (self.sequence(d), self.one('first', 'last', 'min', 'max', 'sum', 'length', "attr('x')")),
                lambda: self.random.choice(self.macros) + '(%s)' % self.one('', self.any(d), 'y=' + self.any(d)) if self.macros
                else 'missing',
                lambda: 'loop.%s' % self.one('index', 'index0', 'first', 'last', 'length', 'revindex', 'revindex0', 'previtem',
                                             'nextitem', 'depth', "cycle('a', 'b')", 'changed(n)') if self.loops else 'n',
                lambda: '-%s' % self.number(0), lambda: '+%s' % self.number(0))()
        return self.one(self.integer, self.number, self.string, self.string, self.sequence, self.mapping, self.boolean)(depth)

    # --- statements ---

    def tag(self, text):
        return '{%' + self.one('', '', '', '-', '+') + ' ' + text + ' ' + self.one('', '', '', '-', '+') + '%}'

    def output(self, text):
        return '{{' + self.one('', '', '-', ' ') + ' ' + text + ' ' + self.one('', '', '-') + '}}'

    def body(self, depth):
        return ''.join(self.statement(depth) for _ in range(self.random.randrange(1, 4)))

    def statement(self, depth):
        if depth <= 0 or self.maybe(0.45):
            return self.one(lambda: self.random.choice(TEXTS), lambda: self.output(self.any(2)), lambda: self.output(self.any(3)))()
        return self.one(self.if_block, self.for_block, self.set_tag, self.set_tag, self.set_block, self.namespace_tag, self.macro,
                        self.call_block, self.filter_block, self.with_block, self.comment, self.raw, self.generation, self.recursive,
                        self.jump, self.joiner, self.block)(depth - 1)

    def if_block(self, depth):
        out = self.tag('if ' + self.boolean(2)) + self.body(depth)
        while self.maybe(0.3):
            out += self.tag('elif ' + self.boolean(1)) + self.body(depth)
        if self.maybe(0.5):
            out += self.tag('else') + self.body(depth)
        return out + self.tag('endif')

    def for_block(self, depth):
        target, items = self.one(
            ('i', self.sequence(2)), ('i', self.any(1)), ('k, v', 'd.items()'), ('k, v', 'd|dictsort'), ('k, v', self.sequence(1)),
            ('m', 'messages'), ('(a, b), c', '[((1, 2), 3)]'), ('s', 'ls'), ('c', self.string(1)), ('g, items', "dl|groupby('a')"))
        names = [n for n in target.replace('(', '').replace(')', '').split(', ')]
        kept = self.names
        self.names = kept + names
        condition = self.one('', '', '', ' if ' + self.boolean(1))
        self.loops += 1
        out = self.tag('for ' + target + ' in ' + items + condition) + self.body(depth)
        self.loops -= 1
        self.names = kept
        if self.maybe(0.3):
            out += self.tag('else') + self.body(depth)
        return out + self.tag('endfor')

    def recursive(self, depth):
        return (self.tag('for i in %s recursive' % self.one('nested', '[1, [2, [3]]]', '[[], [1]]', '[1, [2]] if i')) +
                self.one('{{ loop.depth }}', '{{ loop.depth0 }}{{ loop.index }}', '') +
                '{% if i is iterable and i is not string and i is not mapping %}<{{ loop(i) }}>{% else %}{{ i }}{% endif %}' +
                self.one('', '{% else %}-') + self.tag('endfor'))

    def set_tag(self, depth):
        name = self.one('x', 'y', 's', 'n', 'l')
        if name not in self.names:
            self.names.append(name)
        if self.maybe(0.1):
            return self.tag('set x, y = ' + self.one('1, 2', self.sequence(1), "'ab'", '(3, [4])'))
        return self.tag('set %s = %s' % (name, self.any(2)))

    def set_block(self, depth):
        return self.tag('set x' + self.one('', '', ' | upper', ' | trim | length')) + self.body(depth) + self.tag('endset')

    def namespace_tag(self, depth):
        return self.one('{% set ns = namespace(a=1, b=[]) %}', '{% set ns = namespace() %}', "{% set ns = namespace({'a': 2}) %}") + \
            self.body(depth) + self.tag('set ns.a = ' + self.any(1)) + self.output(self.one('ns.a', 'ns.b', "ns['a']", 'ns'))

    def macro(self, depth):
        name = self.one('f', 'g')
        kept, loops = self.names, self.loops
        self.names = kept + ['p', 'y']
        self.loops = 0
        signature = self.one('p', 'p, y=2', "p='d', y=p", '', 'p, y=n')
        inner = self.body(depth) + self.one('', '{{ caller() if caller }}', '{{ varargs }}{{ kwargs }}', '{{ varargs }}{{ kwargs }}', '{{ caller(1) if caller }}')
        self.names, self.loops = kept, loops
        out = self.tag('macro %s(%s)' % (name, signature)) + inner + self.tag('endmacro')
        self.macros = self.macros + [name]
        return out + self.output('%s(%s)' % (name, self.one('', self.any(1), self.any(1), '1, 2, 3', 'y=5', 'q=1', '*l', '**d', '1, y=s')))

    def call_block(self, depth):
        if not self.macros:
            return self.macro(depth)
        return self.tag('call%s %s(%s)' % (self.one('', '', '(z)', '(z=3)'), self.random.choice(self.macros), self.one('', self.any(1)))) + \
            self.body(depth) + self.tag('endcall')

    def filter_block(self, depth):
        return self.tag('filter ' + self.one('upper', 'trim', 'replace("a", "b")', 'upper|lower', 'indent(2)', 'length', 'escape')) + \
            self.body(depth) + self.tag('endfilter')

    def with_block(self, depth):
        return self.tag('with ' + self.one('x = %s' % self.any(1), 'x = 1, y = x', '')) + self.body(depth) + self.tag('endwith')

    def comment(self, depth):
        return '{#' + self.one('', '-', '+') + ' note {{ x }} ' + self.one('', '-', '+') + '#}'

    def raw(self, depth):
        return self.one('{% raw %}', '{%- raw -%}', '{% raw -%}') + self.one(' {{ x }} ', '\n  {% y %}\n ') + \
            self.one('{% endraw %}', '{%- endraw -%}', '{%+ endraw %}', '{% endraw +%}')

    def generation(self, depth):
        return self.tag('generation') + self.body(depth) + self.tag('endgeneration')

    def jump(self, depth):
        word = self.one('break', 'continue')
        return self.tag('if ' + self.boolean(1)) + self.tag(word) + self.tag('endif') if self.loops else self.tag(word) if self.maybe(0.1) else ''

    def joiner(self, depth):
        return self.one('{% set j = joiner("|") %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}',
                        '{% set c = cycler("a", "b") %}{% for i in l %}{{ c.next() }}{{ c.current }}{% endfor %}')

    def block(self, depth):
        return self.tag('block b%d' % self.random.randrange(100000)) + self.body(depth) + self.tag('endblock')

    def template(self):
        out = ''.join(self.statement(3) for _ in range(self.random.randrange(1, 6)))
        if self.maybe(0.03):
            at = self.random.randrange(len(out) + 1)
            out = out[:at] + self.one('{{', '%}', '{%', '(', '"', '}', '|', '') + out[at + 1:]
        return out
