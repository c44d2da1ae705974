"""Renders templates with the Python package Jinja2, set up as transformers sets it up, for tests to compare with.

Usage: jinja_reference.py TASK RESULT (JSON files)
TASK is {"templates": [...], "inputs": [{...}], "cases": [[template, input], ...], "now": SECONDS}: RESULT is a list of
texts, null where Jinja2 raises; or {"random": COUNT, "seed": N}: RESULT is a list of {"template", "input", "output"}.
"""
import datetime
import json
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1700000000  # 2023-11-14 22:13:20


class Generation(jinja2.ext.Extension):
    tags = {'generation'}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method('_render'), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        fields = dict(*args, **kwargs)
        for name in fields:
            Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, fields)

    def __setitem__(self, name, value):
        Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith('_'):
            raise jinja2.exceptions.SecurityError(name)


def make_environment(now):
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(format):
        return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(tzinfo=None).strftime(format)

    env.filters['tojson'] = tojson
    env.globals['raise_exception'] = raise_exception
    env.globals['strftime_now'] = strftime_now
    env.globals['namespace'] = Namespace
    return env


def compiled(env, source):
    try:
        return env.from_string(source)
    except Exception:
        return None


def render(template, variables):
    try:
        text = template.render(**variables)
        text.encode('utf-8')
        return text
    except Exception:  # whatever it is, also that there is no template: the other side must refuse too
        return None


def main():
    task = json.load(open(sys.argv[1], encoding='utf-8'))
    env = make_environment(task.get('now', NOW))
    if 'random' in task:
        from jinja_random import Generator
        result = []
        for i in range(task['random']):
            generator = Generator(task['seed'] + i)
            source, variables = generator.template(), generator.variables()
            output = render(compiled(env, source), variables)
            if output is None or 't 0x' not in output.lower():  # an address is another one each time
                result.append({'template': source, 'input': variables, 'output': output})
    else:
        templates = [compiled(env, source) for source in task['templates']]
        result = [render(templates[t], task['inputs'][i]) for t, i in task['cases']]
    json.dump(result, open(sys.argv[2], 'w', encoding='utf-8'))


if __name__ == '__main__':
    sys.setrecursionlimit(3000)
    main()
