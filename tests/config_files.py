"""Loading the configs of this repository, and comparing configs."""

import copy
from functools import cache
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]


def load(name):
    """The config of that name, each time a new copy."""
    return copy.deepcopy(_load(name))


@cache
def _load(name):
    return Config.fromfile(ROOT / f'configs/{name}.py')


def plain(value):
    """A config without the notes of where its parts were inherited from."""
    if hasattr(value, 'items'):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
