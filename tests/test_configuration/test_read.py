"""Mistakes in config files are one line; what fails in code that a config calls is not."""

import traceback

import pytest

from dynsp_mm.configuration import read_config
from dynsp_mm.errors import UserError

LAZY = 'from mmengine.config import read_base\nwith read_base():\n    from .base import *'
BASE = 'a = None\nb = [1]\nm = dict(x=1)\n'


@pytest.fixture
def write(tmp_path):
    """Write a config and return its path; its bases are there."""
    for name, text in {
        'base.py': BASE,
        'other.py': 'm = 3',
        'child.py': '_base_ = "base.py"\na = dict(x=1)',
        'list.json': '[1]',
        'broken.json': '{',
        'broken.yaml': 'a: [1',
        'lazy.py': LAZY,
    }.items():
        (tmp_path / name).write_text(text)

    def write(text):
        path = tmp_path / 'net.py'
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def mistake_in(path):
    """The text of the error that reading a config ends with."""
    with pytest.raises(UserError) as caught:
        read_config(path)
    return str(caught.value)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('_base_ = "base.py"\na = dict(x=1)', 'a={'),
        ('_base_ = "base.py"\nb = dict(x=1)', "is of type <class 'list'> in base config"),
        ('_base_ = "child.py"', 'You may set `_delete_=True` to ignore the base config.'),
        ('_base_ = ["base.py", "other.py"]', 'Duplicate key is not allowed among bases'),
        ('filename = 1', 'filename is reserved for config file'),
        ('_base_ = "base.py"\nx = {{_base_.nope}}', "there is no entry 'nope'"),
        ('_base_ = "list.json"', 'is no dict of entries'),
        ('_base_ = "broken.json"', 'line 1 column 2'),
        ('_base_ = "broken.yaml"', 'flow sequence'),
        ('_base_ = 5', 'int'),
        ('_base_ = "net.py"', 'a base leads back to its own config'),
        ('_base_ = "lazy.py"', 'is in python style and the other is not'),
        (b'x = "\xff"', "can't decode byte 0xff"),
        ('custom_imports = dict(imports=("os",))', 'custom_imports must be a list'),
        ('x = dict(a=1, a=2)', 'keyword argument repeated'),
    ],
)
def test_what_mmengine_says_is_one_line(write, text, expected):
    path = write(text)
    message = mistake_in(path)
    assert message.startswith(f'{path}, or a file in its _base_') and expected in message
    assert '\n' not in message


@pytest.mark.parametrize(
    'text, expected',
    [
        ('x = 1\ny = nothing', "line 2: NameError: name 'nothing' is not defined"),
        ('x = int("a")', 'line 1: ValueError: invalid literal'),
        ('def f():\n    return 1 / 0\n\n\nx = f()', 'line 2: ZeroDivisionError'),
        ('_base_ = "base.py"\n\nx = _base_.nothing', 'line 3: AttributeError'),
        ('_base_ = "base.py"\nx = _base_["nothing"]', 'line 2: KeyError: nothing'),
        ('assert False, "set DATA"', 'line 1: AssertionError: set DATA'),
    ],
)
def test_errors_of_a_line_of_a_config_name_it(write, text, expected):
    path = write(text)
    assert mistake_in(path).startswith(f'{path}, {expected}')


def test_the_line_of_a_base_is_named(write, tmp_path):
    (tmp_path / 'base.py').write_text('x = nothing')
    with pytest.raises(UserError, match=f'{tmp_path}/base.py, line 1: NameError'):
        read_config(write('_base_ = "base.py"'))


def test_functions_that_a_config_calls_keep_their_traceback(write):
    with pytest.raises(ZeroDivisionError) as caught:
        read_config(write('x = __import__("fractions").Fraction(1, 0)'))
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename.endswith('fractions.py')


def test_missing_modules_are_named(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write('custom_imports = dict(imports=["os", "nowhere_at_all.part"])')
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}: custom_imports: there is no module 'nowhere_at_all': check its name, or let "
        'PYTHONPATH name the folder that has it'
    )
    (tmp_path / 'reads_config_badly.py').write_text('import nowhere_at_all')
    with pytest.raises(ImportError, match='reads_config_badly'):  # a fault of that module
        read_config(write('custom_imports = dict(imports=["reads_config_badly"])'))
