"""Reading configs and walking through them."""

import os.path as osp

from mmengine.config import Config

from ..compat import enable_mmseg_base_configs
from ..errors import UserError
from .paths import PACKAGE, config
from .types import PRETRAINED, type_name

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
    except OSError as error:
        raise UserError(f'{path}: {error}') from error
    except RuntimeError as error:
        if OTHER_STYLE not in str(error):
            raise
        raise UserError(
            f'{path}, or a file in its _base_, is in python style and the other is not: one in '
            'python style is inherited by `with read_base(): from .NAME import *`, and '
            'sparsify_config.py prints its sparse form whole'
        ) from error
    except SyntaxError as error:  # the parser does not know the name of the file
        raise UserError(f'{path}, or a file in its _base_: {error}') from error
    except ModuleNotFoundError as error:
        if error.name is not None:  # a failed import inside the config: its traceback is needed
            raise
        raise UserError(f'{path}: {error}') from error
    except (AssertionError, ValueError) as error:
        if not any(words in str(error) for words in UNKNOWN_BASE):
            raise
        raise UserError(
            f'{path}, or a file in its _base_, has a base that mmengine does not find: {error}; '
            f"one of this package is written _base_ = __import__('{PACKAGE}').config('NAME')"
        ) from error
    if external and package != PACKAGE and cfg.get('default_scope') is None:
        cfg.default_scope = package
    return cfg


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
    if any(type_name(start) in PRETRAINED for start in starts):
        copy['init_cfg'] = None
    return copy
