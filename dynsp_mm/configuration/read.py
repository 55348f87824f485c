"""Reading configs and walking through them."""

import importlib.util
import os.path as osp

from mmengine.config import Config
from mmengine.hub import get_config

from ..compat import enable_mmseg_base_configs, own_config
from ..errors import UserError

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')


def read_config(path):
    """Load a config file, or a library's own as ``mmdet::retinanet/...``.

    Raises:
        UserError: The file or one of its bases is missing or no valid config, or it is one of a
            package that is unknown or not installed.
    """
    enable_mmseg_base_configs()
    package, external, name = path.partition('::')
    # Asked for the config of a package it does not find, mmengine would pip-install that.
    if external and package not in (*LIBRARIES, 'dynsp_mm'):
        raise UserError(
            f'{path}: configs come from {", ".join(LIBRARIES)} and dynsp_mm; got {package!r}'
        )
    if external and package in LIBRARIES and '/' not in path:
        raise UserError(
            f'{path}: a config of {package} is named with its folder, such as '
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        )
    if external and importlib.util.find_spec(package) is None:
        raise UserError(f'{path}: package {package} is not installed')
    if not external and not osp.isfile(path):
        raise UserError(f'config file {path} does not exist')
    try:
        if package == 'dynsp_mm':
            return Config.fromfile(own_config(name))
        cfg = get_config(path) if external else Config.fromfile(path)
    except OSError as error:
        raise UserError(f'{path}: {error}') from error
    except SyntaxError as error:  # the parser does not know the name of the file
        raise UserError(f'{path}, or a file in its _base_: {error}') from error
    except ModuleNotFoundError as error:
        if error.name is not None:  # a failed import inside the config: its traceback is needed
            raise
        raise UserError(f'{path}: {error}') from error
    if external and 'default_scope' not in cfg:
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
    """A copy of a model's config in which no part names weights to start from."""
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
    if any(start and start.get('type') == 'Pretrained' for start in starts):
        copy['init_cfg'] = None
    return copy
