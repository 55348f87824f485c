"""benchmarks/run.py and the commands of benchmarks/speed/: each is one that its tool takes."""

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import run as speed
from dynsp_mm.tooling import runs
from dynsp_mm.tooling.candidates import Candidate
from dynsp_mm.tooling.commands import benchmark, plot, profile

ROOT = Path(__file__).parents[2]
SMALL = """
networks:
  a: dynamic_convnext_atto
  b: dynamic_convnext_atto@drop_path_rate=0.1
results:
  first:
    title: one
    args: $a $a@sparse=0.7 --shape 64 64
    env: {GLIBC_TUNABLES: 'glibc.malloc.top_pad=1'}
  growth-x:
    title: two
    plot: side
    args: $b
  gpu-x:
    title: three
    tool: profile_parts
    args: $a --device cuda
"""


@pytest.fixture
def runner(monkeypatch, tmp_path):
    """Runs the runner in a folder of its own; the commands that it ran, which write results."""
    (tmp_path / 'benchmarks/speed').mkdir(parents=True)
    (tmp_path / 'benchmarks/speed/commands.yml').write_text(SMALL)
    monkeypatch.setattr(speed, 'ROOT', tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    run_commands, returned = [], []

    def run(command, cwd, env):
        assert cwd == tmp_path and env['PATH'] == os.environ['PATH']
        assert env.get('GLIBC_TUNABLES') == (
            'glibc.malloc.top_pad=1' if 'benchmarks/speed/first.json' in command else None
        )
        run_commands.append(command[1:])
        return subprocess.CompletedProcess(command, returned.pop(0) if returned else 0)

    monkeypatch.setattr(speed.subprocess, 'run', run)

    def main(*args):
        run_commands.clear()
        monkeypatch.setattr('sys.argv', ['run.py', *args])
        runs.run_tool(speed.main)
        return [' '.join(command) for command in run_commands]

    main.returned = returned

    def write(name, suffixes=('csv', 'png'), **content):
        for suffix in suffixes:
            (tmp_path / f'benchmarks/speed/{name}.{suffix}').write_text('')
        (tmp_path / f'benchmarks/speed/{name}.json').write_text(json.dumps(content))

    main.write = write
    return main


TOOLS = 'tools/analysis_tools'
FIRST = (
    f'{TOOLS}/benchmark.py dynamic_convnext_atto dynamic_convnext_atto@sparse=0.7 --shape 64 '
    '64 --json benchmarks/speed/first.json --csv benchmarks/speed/first.csv'
)
GROWTH = [
    f'{TOOLS}/benchmark.py dynamic_convnext_atto@drop_path_rate=0.1 '
    '--json benchmarks/speed/growth-x.json --csv benchmarks/speed/growth-x.csv',
    f'{TOOLS}/plot_benchmark.py benchmarks/speed/growth-x.json --against side '
    '--out benchmarks/speed/growth-x.png --name=b=dynamic_convnext_atto@drop_path_rate=0.1',
]
GPU = (
    f'{TOOLS}/profile_parts.py dynamic_convnext_atto --device cuda '
    '--json benchmarks/speed/gpu-x.json'
)


def test_all_that_is_not_there(runner, capsys, monkeypatch):
    assert runner() == [FIRST, *GROWTH]
    out = capsys.readouterr().out
    assert '[benchmarks] first: one\n' in out
    assert '[benchmarks] gpu-x: skipped, there is no CUDA device\n' in out
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert runner() == [FIRST, *GROWTH, GPU]
    runner.write('first', finished=True)
    runner.write('growth-x', finished=False)  # interrupted
    runner.write('gpu-x')  # profile_parts writes at its end only
    assert runner() == GROWTH
    assert '[benchmarks] first: there; --force measures it again\n' in capsys.readouterr().out
    runner.write('growth-x', finished=True, failures=['out of memory'])
    assert runner() == GROWTH
    assert runner('--force') == [FIRST, *GROWTH, GPU]


def test_a_plot_that_is_missing(runner):
    runner.write('first', suffixes=['csv'])
    runner.write('growth-x', suffixes=['csv'])
    assert runner('first') == [] and runner('growth-x') == GROWTH
    runner.write('growth-x')
    assert runner('growth-x') == []


def test_some(runner, capsys):
    assert runner('growth-*') == GROWTH
    assert runner('growth-*', 'first') == [FIRST, *GROWTH]
    with pytest.raises(SystemExit):
        runner('first', 'second*')
    assert capsys.readouterr().err == (
        "ERROR: no result is called 'second*'; --list shows those there are\n"
    )


def test_list(runner, capsys):
    runner.write('first')
    assert runner('--list') == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        'first: one (there)',
        f'    GLIBC_TUNABLES=glibc.malloc.top_pad=1 python {FIRST}',
        'growth-x: two',
    ]


def test_failures_do_not_end_the_run(runner, capsys):
    runner.returned.extend([2, 1])
    with pytest.raises(SystemExit) as caught:
        runner()
    assert caught.value.code == 2
    assert capsys.readouterr().err == 'ERROR: not all of first, growth-x could be measured\n'


def test_the_commands_that_are_listed(monkeypatch):
    """Each result's commands are ones that the tools take, and its candidates exist."""
    tools = dict(benchmark=benchmark, profile_parts=profile, plot_benchmark=plot)
    commands = speed.read_commands()
    # The README names each result, or its group, such as `gpu-*`.
    described = re.findall(r'`([\w*-]+)`', (ROOT / 'benchmarks/speed/README.md').read_text())
    labels = set()
    for name, spec in commands.items():
        assert any(fnmatch.fnmatch(name, pattern) for pattern in described), name
        for path, *arguments in spec['commands']:
            tool = tools[Path(path).stem]
            monkeypatch.setattr('sys.argv', [path, *arguments])
            args = tool.parse_args()
            if Path(path).stem != 'plot_benchmark':
                assert str(args.json) == f'benchmarks/speed/{name}.json'
                assert (args.device == 'cuda') == name.startswith('gpu-')
                labels.update(args.candidates)
            if Path(path).stem == 'benchmark':
                monkeypatch.chdir(ROOT)
                tool.check_args(args)
    assert len(commands) > 20 and len(labels) > 20
    for label in labels:
        candidate = Candidate(label)
        assert candidate.named or 'backbone' in candidate.cfg.model


def test_results_are_of_the_listed_commands():
    """Each that is there was measured to its end, by the command that it has now."""
    commands = speed.read_commands()
    results = sorted(ROOT.glob('benchmarks/speed/*.json'))
    others = []
    for path in results:
        content = json.loads(path.read_text())
        command = shlex.join(commands[path.stem]['commands'][0])
        # Those from before the folder was made name the one above.
        if content['command'] not in (command, command.replace('benchmarks/speed/', 'benchmarks/')):
            others.append(path.stem)
        assert content.get('finished', True) and not content.get('failures'), path.stem
        for option in ('--csv', '--out'):
            for line in commands[path.stem]['commands']:
                assert option not in line or (ROOT / line[line.index(option) + 1]).is_file()
    assert len(results) > 8
    assert not others, 'of other commands'


def test_the_command_of_the_readme(tmp_path):
    """It runs from anywhere, with the package of its own checkout, and takes patterns."""
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks/run.py', '--list', 'clock-swin-s*'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('clock-swin-s: ') and 'clock-swin-s-bf16: ' in done.stdout
