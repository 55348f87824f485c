import importlib.metadata
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone

import pytest
import torch

import dynsp_mm
from dynsp_mm.analysis import machine

CPU = torch.device('cpu')


def test_hardware(monkeypatch):
    found = machine.hardware(CPU)
    assert found['threads'] == torch.get_num_threads() and found['cores'] == os.cpu_count()
    assert found['cpu'] and found['accelerator'] is None
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'GPU {device.index}')
    assert machine.hardware(torch.device('cuda:1'))['accelerator'] == 'GPU 1'


def test_versions():
    found = machine.versions(('torch', 'no_such_package'))
    assert found == dict(python=sys.version.split()[0], torch=importlib.metadata.version('torch'))
    assert list(machine.versions())[:2] == ['python', 'torch']


def test_commit(tmp_path, monkeypatch):
    """Of a checkout that has the file; '-dirty' where something changed; else None."""
    file = tmp_path / 'machine.py'
    shutil.copy(machine.__file__, file)
    monkeypatch.setattr(machine, '__file__', str(file))
    # As far as git looks: the folder may lie in a checkout.
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert machine.own_version() == dict(version=dynsp_mm.__version__, commit=None)

    def git(*args):
        return subprocess.run(
            ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *args],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    git('init', '-q')
    git('commit', '-q', '--allow-empty', '-m', 'first')
    assert machine.own_version()['commit'] is None  # the file is not of this checkout
    git('add', '.')
    git('commit', '-q', '-m', 'second')
    git('tag', '-a', 'v1', '-m', 'release')
    head = git('rev-parse', 'HEAD')
    assert machine.own_version()['commit'] == head
    for folder in ('benchmarks', 'docs'):  # results and their tables are none of the code
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'result.json').write_text('old')
    git('add', '.')
    git('commit', '-q', '-m', 'third')
    head = git('rev-parse', 'HEAD')
    for folder in ('benchmarks', 'docs'):
        (tmp_path / folder / 'result.json').write_text('new')
    assert machine.own_version()['commit'] == head
    file.write_text('')
    assert machine.own_version()['commit'] == head + '-dirty'
    monkeypatch.setenv('PATH', '')  # no git
    assert machine.own_version()['commit'] is None


def test_circumstances(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool.py', 'a b', '--c'])
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
    found = machine.circumstances(CPU)
    assert found['command'] == "tool.py 'a b' --c"
    assert abs(datetime.now(timezone.utc) - datetime.fromisoformat(found['date'])).days == 0
    assert found['hardware'] == machine.hardware(CPU) and found['versions'] == machine.versions()
    assert found['dynsp_mm'] == machine.own_version()
    assert found['environment']['OMP_NUM_THREADS'] == '3'
    assert set(found['environment']) <= set(machine.SPEED_VARIABLES) - {'GLIBC_TUNABLES'}


def test_devices():
    assert machine.find_device('cpu') == CPU
    with pytest.raises(ValueError, match="device 'abacus' is not available: Expected one of"):
        machine.find_device('abacus')
    with pytest.raises(ValueError, match="device 'meta': must be cpu or an accelerator whose"):
        machine.find_device('meta')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device 'cuda' is not available: .+"):
            machine.find_device('cuda')


def test_dtypes():
    machine.check_dtype(torch.float32, CPU)
    with pytest.raises(ValueError, match='torch.bool does not work on cpu: .+'):
        machine.check_dtype(torch.bool, CPU)


def test_first_line():
    assert machine.first_line(RuntimeError('\na b\nc')) == 'a b'
    assert machine.first_line(RuntimeError()) == 'RuntimeError'
