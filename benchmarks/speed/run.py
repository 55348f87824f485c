"""Measures the results of this folder again, each by its command in commands.yml.

    python benchmarks/run.py --list
    python benchmarks/run.py clock-swin-s
    python benchmarks/run.py 'growth-*' --force
    python benchmarks/run.py                    # all that have no result yet

A result that was interrupted or that failed in some of its rows counts as none. Those of GPUs are
skipped where there is none.
"""

import argparse
import fnmatch
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from string import Template

import torch
from mmengine.fileio import load

from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling import runs

# Paths are relative to ROOT, so that the results name none of this machine.
ROOT = Path(__file__).resolve().parents[2]
HERE, TOOLS = 'benchmarks/speed', 'tools/analysis_tools'


def read_content():
    """What commands.yml holds: ``networks`` and ``results``."""
    return load(ROOT / HERE / 'commands.yml')


def result_file(name):
    """The measurements of a result; whether they are there is another question."""
    return ROOT / HERE / f'{name}.json'


def commands_of(name, spec, networks):
    """The command lines that make a result, in order.

    Args:
        name (str): Name of the result.
        spec (dict): Entry of the result in commands.yml.
        networks (dict[str, str]): Networks of commands.yml.
    """
    arguments = shlex.split(Template(spec['args']).substitute(networks))
    stem, tool = f'{HERE}/{name}', spec.get('tool', 'benchmark')
    measure = [f'{TOOLS}/{tool}.py', *arguments, '--json', f'{stem}.json']
    if tool == 'benchmark':
        measure += ['--csv', f'{stem}.csv']
    if 'plot' not in spec:
        return [measure]
    plot = [f'{TOOLS}/plot_benchmark.py', f'{stem}.json', '--against', spec['plot']]
    names = [f'--name={key}={network}' for key, network in networks.items() if network in arguments]
    return [measure, [*plot, '--out', f'{stem}.png', *names]]


def read_commands():
    """Name of each result -> how it is made.

    ``title``, ``commands`` (command lines, in order), ``files`` (that they write) and ``env`` (what
    they have in their environment).
    """
    content = read_content()
    found = {}
    for name, spec in content['results'].items():
        commands = commands_of(name, spec, content['networks'])
        files = [
            word
            for command in commands
            for option, word in zip(command, command[1:])
            if option in ('--json', '--csv', '--out')
        ]
        found[name] = dict(
            title=spec['title'], commands=commands, files=files, env=spec.get('env', {})
        )
    return found


def choose(commands, patterns):
    """Names that fit any of the patterns, in the order of the file; all without patterns."""
    for pattern in patterns:
        if not fnmatch.filter(commands, pattern):
            raise cli.UserError(f'no result is called {pattern!r}; --list shows those there are')
    return [
        name
        for name in commands
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def is_there(name, files):
    """Whether a result was measured to its end, without failures, and has its other files."""
    try:
        content = json.loads(result_file(name).read_text())
    except (OSError, ValueError):
        return False
    return (
        content.get('finished', True)
        and not content.get('failures')
        and all((ROOT / file).is_file() for file in files)
    )


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python benchmarks/run.py',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('names', nargs='*', metavar='NAME', help='or a pattern, such as growth-*; default: all')
    add(
        '--list',
        action='store_true',
        help='only show the results, whether they are there, and their commands',
    )
    add('--force', action='store_true', help='also measure what is there')
    return parser.parse_args()


def main():
    args = parse_args()
    commands = read_commands()
    failed = []
    for name in choose(commands, args.names):
        lines, env = commands[name]['commands'], commands[name]['env']
        there = is_there(name, commands[name]['files'])
        if args.list:
            print(f'{name}: {commands[name]["title"]}' + (' (there)' if there else ''))
            for line in lines:
                settings = [f'{key}={value}' for key, value in env.items()]
                print(f'    {shlex.join([*settings, "python", *line])}')
        elif there and not args.force:
            print(f'[benchmarks] {name}: there; --force measures it again', flush=True)
        elif name.startswith('gpu-') and not torch.cuda.is_available():
            print(f'[benchmarks] {name}: skipped, there is no CUDA device', flush=True)
        else:
            print(f'[benchmarks] {name}: {commands[name]["title"]}', flush=True)
            if any(
                subprocess.run(
                    [sys.executable, *line], cwd=ROOT, env={**os.environ, **env}
                ).returncode
                for line in lines
            ):
                failed.append(name)
    if failed:
        raise cli.UserError(f'not all of {", ".join(failed)} could be measured')


if __name__ == '__main__':
    runs.run_tool(main)
