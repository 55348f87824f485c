"""python -m dynsp_mm: the table of commands, and one process of it."""

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dynsp_mm.__main__ as program
from dynsp_mm.errors import UserError


@pytest.fixture(autouse=True)
def arguments(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['dynsp_mm'])


@pytest.mark.parametrize('name', program.COMMANDS)
def test_each_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main([name, '--help'])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: python -m dynsp_mm {name} ')


def test_each_command_is_a_module_with_main():
    for module, text in program.COMMANDS.values():
        main = importlib.import_module(f'dynsp_mm.tooling.commands.{module}').main
        assert [p.default for p in inspect.signature(main).parameters.values()] == [None] and text


@pytest.mark.parametrize('argv', [[], ['--help'], ['-h']])
def test_without_a_command_it_lists_them(argv, capsys):
    program.main(argv)
    out = capsys.readouterr().out
    assert out.startswith('usage: python -m dynsp_mm COMMAND')
    for name, (_, text) in program.COMMANDS.items():
        assert f'  {name} ' in out and text in out


def test_an_unknown_command():
    with pytest.raises(UserError) as caught:
        program.main(['trian'])
    assert str(caught.value) == (
        f"unknown command 'trian': must be one of {', '.join(program.COMMANDS)}"
    )


def test_in_a_process(tmp_path):
    def run(*args):
        return subprocess.run(
            [sys.executable, '-m', 'dynsp_mm', *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])},
        )

    done = run('trian')
    assert done.returncode == 2 and done.stderr.startswith("ERROR: unknown command 'trian': ")
    assert done.stdout == '' and len(done.stderr.splitlines()) == 1
    done = run('sparsify', 'dynsp_mm::maskrcnn_dyswin_t.py', '0.5')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("_base_ = __import__('dynsp_mm').config('maskrcnn_dyswin_t.py')")
    done = run('flops', 'no.py')
    assert (done.returncode, done.stderr) == (2, 'ERROR: config file no.py does not exist\n')
