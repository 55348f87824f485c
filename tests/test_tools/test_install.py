"""The installer's errors, with a PATH on which things are absent."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the script itself needs before it looks for python and compilers.
BASE = ('bash', 'dirname', 'grep', 'cat', 'cut', 'sha256sum', 'nproc', 'tail', 'wc', 'seq', 'sleep')
PYTHONS = ('python3.12', 'python3.11', 'python3.10', 'python3')


def install(tmp_path, programs=(), fake=()):
    """Runs a copy of the installer with only these programs (and fake ones) on the PATH."""
    folder, checkout = tmp_path / 'bin', tmp_path / 'checkout'
    folder.mkdir()
    for name in (*BASE, *programs):
        (folder / name).symlink_to(shutil.which(name))
    for name, script in fake:
        (folder / name).write_text(f'#!{shutil.which("bash")}\n{script}\n')
        (folder / name).chmod(0o755)
    for part in ('tools', 'requirements'):
        shutil.copytree(ROOT / part, checkout / part)
    for part in ('setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / part, checkout)
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHON', 'CXX')}
    done = subprocess.run(
        ['bash', 'tools/install.sh'],
        cwd=checkout,
        capture_output=True,
        text=True,
        env=dict(env, PATH=str(folder)),
    )
    assert not (checkout / '.venv').exists()
    return done


COMPILERS = [('g++', 'exit 0'), ('make', 'exit 0')]


@pytest.mark.parametrize('absent,fake', [('make', []), ('g++', [('make', 'exit 0')])])
def test_missing_compiler(tmp_path, absent, fake):
    done = install(tmp_path, fake=fake)
    assert done.returncode == 1
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith(f"ERROR: '{absent}' is missing")
    assert errors[0].endswith('apt-get install python3 python3-venv python3-dev make g++')


@pytest.mark.parametrize(
    'answer,said',
    [
        (None, "no 'python3.12'"),
        ('exit 1', "'python3.12' does not run"),
        ('echo "/usr/bin/python3.12 lacks the venv module"', 'lacks the venv module'),
    ],
)
def test_no_usable_python(tmp_path, answer, said):
    fake = [(name, answer) for name in PYTHONS] if answer else []
    done = install(tmp_path, fake=[*COMPILERS, *fake])
    assert done.returncode == 1
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 1 and said in errors[0]
    assert errors[0].endswith('apt-get install python3 python3-venv python3-dev make g++')
