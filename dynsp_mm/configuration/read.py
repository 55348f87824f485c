"""Reading configs and walking through them."""

import os.path as osp
import re
import traceback
from json import JSONDecodeError

from mmengine.config import Config

from ..checkpoints import is_pretrained
from ..compat import enable_mmseg_base_configs
from ..errors import UserError
from .paths import PACKAGE, config

# What mmengine says of a base in the other of its two styles of configs, and of a base
# 'package::name' whose package or form it does not know.
OTHER_STYLE = 'must match the current configuration file type'
UNKNOWN_BASE = ('does not support to load', 'is used for get external package')


def read_config(path):
    """Load a config file, or one of a library or of this package as ``mmdet::retinanet/...``.

    Raises:
        UserError: The file or one of its bases is missing or no valid config, or it is one of a
            package that is unknown or not installed.
    """
    enable_mmseg_base_configs()
    package, external, _ = path.partition('::')
    if not external and not osp.isfile(path):
        raise UserError(f'config file {path} does not exist')
    try:
        cfg = Config.fromfile(config(path) if external else path)
    except Exception as error:
        sentence = _explain(path, error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    if external and package != PACKAGE and cfg.get('default_scope') is None:
        cfg.default_scope = package
    return cfg


def _explain(path, error):
    """What is wrong with a config that could not be read, in one line; None if nobody says.

    That is what mmengine says of it, or an error of Python in the lines of a config itself. What is
    raised in functions that a config calls needs its traceback.
    """
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) else error).split())
    somewhere = f'{path}, or a file in its _base_'  # mmengine does not say in which
    if isinstance(error, UserError):
        return None  # says it already
    if isinstance(error, OSError):
        return f'{path}: {error}'
    if isinstance(error, ImportError):
        return _explain_import(path, error)
    if any(words in text for words in UNKNOWN_BASE):
        return (
            f'{somewhere}, has a base that mmengine does not find: {text}; '
            f"one of this package is written _base_ = __import__('{PACKAGE}').config('NAME')"
        )
    if OTHER_STYLE in text:
        return (
            f'{somewhere}, is in python style and the other is not: one in python style is '
            'inherited by `with read_base(): from .NAME import *`, and sparsify_config.py prints '
            'its sparse form whole'
        )
    executed, place, by_reader = _raised_in(error)
    if executed:
        return place and f'{place}: {type(error).__name__}: {text}'
    if isinstance(error, RecursionError):
        return f'{somewhere}: a base leads back to its own config'
    # The parser of YAML is mmengine's own affair.
    yaml = any(base.__name__ == 'YAMLError' for base in type(error).__mro__)
    if yaml or isinstance(error, (SyntaxError, JSONDecodeError, UnicodeDecodeError)):
        return f'{somewhere}: {text}'
    if by_reader and isinstance(error, KeyError) and ' ' not in text:
        return f'{somewhere}: there is no entry {text!r}'
    if by_reader and isinstance(error, AttributeError):
        return f'{somewhere}, is no dict of entries: {text}'
    return f'{somewhere}: {text}' if by_reader and text else None


def _explain_import(path, error):
    """The same for modules that are not there. One that fails needs its traceback."""
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    if cause is error:  # of a base; a failed import inside the config has the name of the module
        return None if error.name is not None else f'{path}: {error}'
    named = re.search(r'custom modules from (.*?), the current sys.path', str(error), re.DOTALL)
    missing = isinstance(cause, ModuleNotFoundError) and str(cause.name)
    if not named or not missing or not re.search(rf'[\'"]{re.escape(missing)}[.\'"]', named[1]):
        return None
    return (
        f'{path}: custom_imports: there is no module {missing!r}: check its name, or let '
        'PYTHONPATH name the folder that has it'
    )


def _raised_in(error):
    """Where an error of reading a config was raised.

    Returns:
        (bool, str or None, bool): Whether code of a config ran; its file and line if the error is
        of that line itself, or of mmengine where that looks up what the line asks for; whether it
        is mmengine's reader that raised it.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    # Code of a config is executed as that of no module.
    modules = [frame.f_globals.get('__name__') for frame, _ in frames]
    executed = None in modules
    while (modules[-1] or '').startswith(('mmengine.', 'addict.')):
        modules.pop()
    place = None
    if modules[-1] is None:
        frame, line = frames[len(modules) - 1]
        place = f'{frame.f_code.co_filename}, line {line}'
    return executed, place, modules[-1] == __name__


def leaf_datasets(dataset, key='dataset'):
    """Yield (dotted config key, config) of each dataset inside wrappers such as ConcatDataset."""
    if isinstance(dataset, (list, tuple)):
        for i, item in enumerate(dataset):
            yield from leaf_datasets(item, f'{key}.{i}')
    elif isinstance(dataset, dict):
        nested = [name for name in ('dataset', 'datasets') if dataset.get(name) is not None]
        for name in nested:
            yield from leaf_datasets(dataset[name], f'{key}.{name}')
        if not nested:
            yield key, dataset


def without_pretrained(config):
    """A copy of a model's config in which no module names weights to start from."""
    if isinstance(config, (list, tuple)):
        return type(config)(without_pretrained(item) for item in config)
    if not isinstance(config, dict):
        return config
    # Classes of the libraries read entries of a config as attributes.
    copy = type(config)(
        {key: without_pretrained(value) for key, value in config.items() if key != 'pretrained'}
    )
    starts = config.get('init_cfg')
    starts = starts if isinstance(starts, (list, tuple)) else [starts]
    if any(is_pretrained(start) for start in starts):
        copy['init_cfg'] = None
    return copy
