"""Loading the configs of this repository, and comparing configs."""

import copy
from functools import cache
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'


def path_of(name):
    """The file in the folder of its method that says what is in the config of that name."""
    (path,) = CONFIGS.glob(f'[!_]*/{name}.py')
    return path


def load(name):
    """The config of that name, each time a new copy."""
    return copy.deepcopy(load_path(CONFIGS / f'{name}.py'))


@cache
def load_path(path):
    """The config of a file; the same object each time."""
    return Config.fromfile(path)


def plain(value):
    """A config without the notes of where its parts were inherited from."""
    if hasattr(value, 'items'):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
