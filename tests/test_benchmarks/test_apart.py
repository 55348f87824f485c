"""What users have needs nothing of benchmarks/, and one file there touches the path."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imported(path):
    """Absolute names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize('folder', ['dynsp_mm', 'tools', 'configs'])
def test_nothing_imports_benchmarks(folder):
    paths = list((ROOT / folder).rglob('*.py'))
    assert paths
    for path in paths:
        assert not [name for name in imported(path) if name.split('.')[0] == 'benchmarks'], path


def test_one_file_touches_the_path():
    paths = (ROOT / 'benchmarks').rglob('*.py')
    assert [path.name for path in paths if 'sys.path' in path.read_text()] == ['run.py']
