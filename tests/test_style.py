"""The style's keeper: one version of ruff everywhere, run before the tests."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from mmengine.fileio import load

ROOT = Path(__file__).parents[1]


def test_one_version_of_ruff():
    (locked,) = re.findall(r'(?m)^ruff==(.+)$', (ROOT / 'requirements/lock.txt').read_text())
    (extra,) = re.findall(r'"ruff==(.+?)"', (ROOT / 'pyproject.toml').read_text())
    hooks = {hooks['repo']: hooks for hooks in load(ROOT / '.pre-commit-config.yaml')['repos']}
    ruff = hooks['https://github.com/astral-sh/ruff-pre-commit']
    assert locked == extra == ruff['rev'].removeprefix('v')
    assert [hook['id'] for hook in ruff['hooks']] == ['ruff-check', 'ruff-format']


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
def test_make_test_checks_the_style_first():
    done = subprocess.run(['make', '-n', 'test'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = ['tools/install.sh', 'ruff check', 'ruff format --no-cache --check', 'pytest']
    positions = [done.stdout.index(step) for step in steps]
    assert positions == sorted(positions)
