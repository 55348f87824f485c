"""A whole config as text that loads again."""

import inspect
from typing import Any

from mmengine.config import Config

from ..errors import UserError

# Entries that name what is built, where mmengine writes the name of a class.
NAMING = ('type', 'constructor', 'runner_type')


def is_python_style(cfg: Config) -> bool:
    """Whether a config was read from a file in python style, whose types are imported."""
    return cfg.to_dict(keep_imported=True).keys() != cfg.to_dict().keys()


def whole_text(cfg: Config) -> str:
    """All entries of a config, as text that loads wherever it is written to.

    Types and constructors that are classes and functions are written with their modules. Modules
    and functions that a config in python style only works with are left out.

    Raises:
        UserError: An entry cannot be written, which the message names.
    """
    entries = {
        key: value
        for key, value in cfg.to_dict().items()
        if not (inspect.ismodule(value) or inspect.isroutine(value))
    }
    _check(cfg.filename, '', {key: cfg[key] for key in entries})
    return Config(entries).pretty_text


def _check(filename: str, key: str, value: Any) -> None:
    if isinstance(value, dict):
        for name, item in dict.items(value):  # not those of mmengine, which import
            if name not in NAMING or not callable(item):
                _check(filename, f'{key}.{name}'.lstrip('.'), item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(filename, f'{key}.{index}', item)
    elif not _reads_as_itself(value):
        raise UserError(
            f'{filename}: {key} is {value!r}, which a config in text cannot hold; '
            'train.py and the other tools make this config sparse by --sparse RATIO, without a file'
        )


def _reads_as_itself(value: Any) -> bool:
    try:
        return bool(eval(repr(value), {}) == value)
    except Exception:  # whatever the text of an object does
        return False
