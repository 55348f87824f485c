"""Options that commands share, and what they do to a config.

Every function here changes a loaded config or checks an option; nothing is built before the config
is complete. One code path serves mmdet, mmseg and mmpretrain; where they differ,
``cfg.default_scope`` decides.
"""

import argparse
import importlib.util
import logging
import os
import os.path as osp
import re

from mmengine.config import DictAction
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ..compat import has_accelerator
from ..configuration import read_config
from ..configuration.places import BACKBONE, kind_of, to_swap
from ..configuration.swap import HOOK_NAMES, parse_swap, sparsify
from ..configuration.types import find_scope, is_type, library_of, type_name, typed_configs
from ..errors import UserError
from ..ops import BACKENDS


class Overrides(DictAction):
    """Reads entries of a config; what is no entry is a line of usage, as with other options."""

    def __call__(self, parser, namespace, values, option_string=None):
        for text in values:
            if not text.partition('=')[0].strip('.') or '=' not in text:
                parser.error(f'{option_string} {text!r}: must be KEY=VALUE, such as model.depth=3')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:  # brackets that do not close
            parser.error(f'{option_string}: {error}')


def add_config_options(parser):
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        help='entries of the config to override, e.g. train_dataloader.batch_size=4; lists as '
        'key="[a,b]" or key=a,b, nested ones as key="[(a,b),(c,d)]", quoted, without spaces',
    )


def parse_overrides(texts):
    """Entries of a config, as ``--cfg-options`` reads them from texts such as 'model.depth=3'.

    Returns:
        dict or None: Dotted key -> value; None for no text.
    """
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(['--cfg-options', *texts]).cfg_options if texts else None


def add_sparse_option(parser):
    """Add ``--sparse``."""
    parser.add_argument(
        '--sparse',
        metavar='RATIO',
        help="swap the config's Swin or ConvNeXt "
        'backbone for its sparse counterpart: 0.7, or a ratio per predictor, '
        '0.7,0.5,0.3; of several backbones the one named, as model.student.backbone=0.7; the '
        'file is not changed',
    )


def enable_sparse(cfg, ratios, cfg_options=None):
    """Swap the backbone as ``--sparse`` says; None changes nothing.

    What it replaces in the config is said.

    Args:
        cfg (Config): The config, changed in place.
        ratios (str): Value of ``--sparse``.
        cfg_options (dict): What ``--cfg-options`` has set before.

    Raises:
        UserError: there is no backbone that can be swapped, ``ratios`` are no numbers, or
            ``cfg_options`` have other ratios.
    """
    if ratios is None:
        return
    hooks = list(_sparse_hooks(cfg))
    try:
        keep_ratios, key = parse_swap(ratios)
        backbone = to_swap(cfg, key)
        before = backbone.config.get('keep_ratios', keep_ratios)
        sparsify(cfg, keep_ratios, backbone.key)
    except UserError as error:
        raise UserError(f'--sparse {ratios}: {error}') from error
    _check_ratio_options(cfg, ratios, backbone, before, cfg_options or {})
    if backbone.key != BACKBONE:
        print_log(f'--sparse {ratios}: the backbone is {backbone.key}', 'current')
    if before is not None and not _same_ratios(before, keep_ratios):
        print_log(
            f'--sparse {ratios} replaces keep_ratios={before} that the config has',
            'current',
            logging.WARNING,
        )
    if hooks and not any(_sparse_hooks(cfg)):
        print_log(
            f'--sparse {ratios} keeps every position: the {type_name(hooks[0])} of the config, '
            'which nothing is left to do for, is taken out',
            'current',
            logging.WARNING,
        )


def _same_ratios(first, second):
    """Whether two values of ``keep_ratios`` are the same, however they are written."""
    first, second = (
        list(ratios) if isinstance(ratios, (list, tuple)) else ratios for ratios in (first, second)
    )
    return first == second


def _check_ratio_options(cfg, ratios, backbone, given, cfg_options):
    """Check that no option sets ratios beside ``--sparse``.

    Args:
        cfg (Config): The config, swapped.
        ratios (str): Value of ``--sparse``.
        backbone (Typed): The backbone that has been swapped.
        given: The ``keep_ratios`` that it had before.
        cfg_options (dict): Value of ``--cfg-options``.

    Raises:
        UserError: an option sets other ratios of the backbone, or ratios of what is none.
    """
    same = _same_ratios(given, backbone.config['keep_ratios'])
    places = typed_configs(cfg.model, 'model', cfg.get('default_scope'))
    sparse = [place.key for place in places if kind_of(place).sparse]
    for key, value in cfg_options.items():
        owner, found, _ = f'{key}.'.partition('.keep_ratios.')
        if not found or not owner.startswith('model'):
            continue
        if owner == backbone.key and not same:
            raise UserError(
                f'--sparse {ratios} and --cfg-options {key}={value} contradict each other; '
                '--sparse RATIO says both that the backbone is sparse and its ratio'
            )
        if owner not in sparse:
            raise UserError(
                f'--sparse {ratios} and --cfg-options {key}={value}: the backbone with ratios is '
                f'{backbone.key}, and --sparse RATIO sets them'
            )


def enable_from_dense(cfg, checkpoint, cfg_options=None):
    """Start from a dense checkpoint and learn from it, as ``--from-dense`` says.

    Raises:
        UserError: the file does not exist, the config has no sparse training hook, or
            ``cfg_options``, the value of ``--cfg-options``, name another start or teacher.
    """
    if checkpoint is None:
        return
    check_checkpoint(checkpoint, '--from-dense')
    hook = next(_sparse_hooks(cfg), None)
    if hook is None:
        raise UserError(
            f'{cfg.filename}: --from-dense needs a sparse model with its training '
            "hook; add --sparse RATIO, or dict(type='SpatialSparsityHook') to "
            'custom_hooks'
        )
    number = next(i for i, other in enumerate(cfg.custom_hooks) if other is hook)
    for key, value in (cfg_options or {}).items():
        said = f'{key}.'.startswith(('load_from.', f'custom_hooks.{number}.teacher.'))
        if said and value != checkpoint:
            raise UserError(
                f'--from-dense {checkpoint} and --cfg-options {key}={value} contradict each other; '
                '--from-dense sets load_from and the teacher'
            )
    hook.teacher = cfg.load_from = checkpoint


def _sparse_hooks(cfg):
    """Configs of the hooks of sparse training."""
    for hook in cfg.get('custom_hooks') or []:
        if isinstance(hook, dict) and is_type(hook, HOOK_NAMES, HOOKS, cfg.get('default_scope')):
            yield hook


def check_teachers(cfg):
    """Raise a :class:`UserError` if the checkpoint of a teacher is local and no file."""
    for hook in _sparse_hooks(cfg):
        teacher = hook.get('teacher')
        if isinstance(teacher, dict):
            teacher = teacher.get('checkpoint')
        if isinstance(teacher, str):
            check_checkpoint(teacher, 'teacher')


def add_common_arguments(parser):
    """Add the options that training and testing have in common."""
    add_sparse_option(parser)
    parser.add_argument(
        '--work-dir',
        help='directory of logs, checkpoints and metrics '
        '(default: work_dir of the config, else work_dirs/<config name>, followed by '
        '_sparse_RATIO with --sparse)',
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torch.distributed.launch passes the second spelling since torch 2.0.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch'
    )


def add_backend_option(parser):
    """Add ``--backend``; ``none`` becomes None."""
    parser.add_argument(
        '--backend',
        default='auto',
        metavar='NAME',
        type=parse_backend,
        help='with which backbones of dynsp_mm are prepared for inference: '
        f'{", ".join(BACKENDS)}, or none: they run as they are (default: %(default)s)',
    )


def parse_backend(text):
    """A value of ``--backend``."""
    if text not in (*BACKENDS, 'none'):
        raise argparse.ArgumentTypeError(f'{text!r}: must be one of {", ".join(BACKENDS)}, none')
    return None if text == 'none' else text


def enable_prepared(cfg, backend):
    """Tests with backbones that are prepared for inference; None for as they are."""
    if backend is not None:
        hook = dict(type='PrepareForInferenceHook', backend=backend)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def load_config(path, cfg_options=None, sparse=None):
    """Load a config file, or a library's own as ``mmdet::retinanet/...``, and override entries.

    Args:
        path (str): The file or name.
        cfg_options (dict): Dotted key -> value.
        sparse (str): Value of ``--sparse``, for :func:`enable_sparse`. The hook that it adds is
            the last of ``custom_hooks``, and options for a hook of that index are set in it.

    Raises:
        UserError: the file or one of its bases is missing or no valid config, an override does
            not fit, the backbone cannot be swapped, or ``default_scope`` is unset, where no class
            tells it, or names a package that is not installed.
    """
    cfg = read_config(path)
    options = dict(cfg_options or {})
    added = {} if sparse is None else _options_of_added_hook(cfg, options)
    override(cfg, {key: value for key, value in options.items() if key not in added})
    _check_scope(cfg)
    enable_sparse(cfg, sparse, options)
    override(cfg, added)
    return cfg


def _options_of_added_hook(cfg, cfg_options):
    """Those of the options that are for a hook which the config does not have yet."""
    hooks = cfg_options.get('custom_hooks', cfg.get('custom_hooks')) or []
    indices = {key: re.match(r'custom_hooks\.(\d+)(\.|$)', key) for key in cfg_options}
    return {
        key: cfg_options[key]
        for key, index in indices.items()
        if index and int(index[1]) >= len(hooks)
    }


def override(cfg, cfg_options):
    """Override entries of a loaded config, by dotted keys.

    Raises:
        UserError: an override does not fit.
    """
    if cfg_options:
        try:
            cfg.merge_from_dict(cfg_options)
        except (KeyError, TypeError, ValueError) as error:
            reason = error.args[0] if error.args else error
            raise UserError(f'--cfg-options {" ".join(cfg_options)}: {reason}') from error
        except AttributeError as error:
            raise UserError(
                f'--cfg-options {" ".join(cfg_options)}: an index replaces only '
                'entries that are dicts; give the whole list'
            ) from error
    hooks = cfg.get('custom_hooks') or []
    if not isinstance(hooks, (list, tuple)) or any(isinstance(hook, str) for hook in hooks):
        raise UserError(f'{cfg.filename}: custom_hooks={hooks!r}: must be a list of dicts')


def _check_scope(cfg):
    scope = cfg.get('default_scope') or find_scope(cfg)
    if scope and not cfg.get('default_scope'):
        cfg.default_scope = scope
    if not scope or not isinstance(scope, str):
        state = repr(scope) if scope else 'not set'
        raise UserError(
            f'{cfg.filename}: default_scope is {state}; the config must name the library that its '
            "types come from: default_scope = 'mmdet', 'mmseg' or 'mmpretrain'"
        )
    if importlib.util.find_spec(scope) is None:
        raise UserError(
            f'{cfg.filename}: default_scope={scope!r}, but package {scope} is not installed'
        )


def require(cfg, *keys):
    """Raise a :class:`UserError` unless the config sets each of ``keys``."""
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise UserError(f'{cfg.filename}: {", ".join(missing)} must be set')


def set_work_dir(cfg, work_dir=None, sparse=None):
    """Set ``cfg.work_dir``: the argument, else the config's, else work_dirs/<config name>.

    A run that ``--sparse`` makes sparse is another than that of its config. So the last folder has
    the ratios in its name too, and each run finds its own checkpoints and replaces no others.

    Args:
        cfg (Config): The config, changed in place.
        work_dir (str): Value of ``--work-dir``.
        sparse (str): Value of ``--sparse``.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(cfg.filename))[0]
        if sparse is not None:
            ratios, _ = parse_swap(sparse)
            ratios = ratios if isinstance(ratios, tuple) else (ratios,)
            name = '_'.join([name, 'sparse', *map(str, ratios)])
        cfg.work_dir = osp.join('work_dirs', name)
        if sparse is not None and _is_first_process():
            print_log(f'--sparse writes to {cfg.work_dir}; --work-dir DIR names another', 'current')


def _is_first_process():
    """Whether no other process of a run comes before this one, as its launcher says."""
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'LOCAL_RANK')
    return int(next((os.environ[name] for name in ranks if name in os.environ), 0)) == 0


def set_launcher(cfg, launcher, local_rank=0):
    """Set ``cfg.launcher`` and, where the launcher has not, the environment's LOCAL_RANK.

    Raises:
        UserError: distributed, but no accelerator; mmengine binds every process to one.
    """
    if launcher != 'none' and not has_accelerator():
        raise UserError(
            f'--launcher {launcher} needs an accelerator for each process: '
            'no CUDA/NPU/MLU/MUSA device is visible'
        )
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', str(local_rank))


def set_dataloader_defaults(cfg):
    """Give mmpretrain's dataloaders the defaults which its own tools add to its configs."""
    if library_of(cfg) != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is None:
            continue
        loader.setdefault('collate_fn', dict(type='default_collate'))
        loader.setdefault('pin_memory', has_accelerator())
        # Workers that do not exist cannot persist: torch raises.
        loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def enable_amp(cfg, requested=True):
    """Switch to mixed precision if requested; check that it can run if it is on in any case.

    Raises:
        UserError: no accelerator is visible, or the optimizer wrapper is of another type.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    name = type_name(wrapper) or 'OptimWrapper'
    if not requested and name != 'AmpOptimWrapper':
        if name == 'OptimWrapper':  # it may have been put in place of a config's AmpOptimWrapper
            for key in ('loss_scale', 'dtype'):
                wrapper.pop(key, None)
        return
    if not has_accelerator():
        source = '--amp' if requested else "optim_wrapper.type='AmpOptimWrapper'"
        raise UserError(
            f'{source} needs an accelerator: no CUDA/NPU/MLU/MUSA device is visible'
            + ('' if requested else '; without one, --cfg-options optim_wrapper.type=OptimWrapper')
        )
    if not requested:
        return
    require(cfg, 'optim_wrapper')
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            f'{cfg.filename}: --amp replaces an optim_wrapper of type OptimWrapper; got {name}'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg):
    """Scale the learning rate by actual batch size / ``auto_scale_lr.base_batch_size``."""
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            f'{cfg.filename}: --auto-scale-lr needs the batch size that the learning '
            'rate was chosen for: auto_scale_lr = dict(base_batch_size=...)'
        )
    cfg.auto_scale_lr.enable = True


def enable_resume(cfg, resume):
    """Continue from checkpoint ``resume``; 'auto' is the latest in work_dir, None changes nothing.

    With 'auto' and no checkpoint yet, training starts as without the option, from ``load_from``
    if that is set: so a job may always ask to resume.
    """
    if resume is None:
        return
    if resume != 'auto':
        cfg.load_from = check_checkpoint(resume, '--resume')
    elif osp.isfile(osp.join(cfg.work_dir, 'last_checkpoint')):
        cfg.load_from = None
    else:
        cfg.resume = False
        return
    cfg.resume = True


def check_checkpoint(path, name='checkpoint'):
    """Return ``path``; raise a :class:`UserError` if it is local and no file."""
    if '://' not in path and not osp.isfile(path):
        raise UserError(f'{name} {path} does not exist')
    return path


def check_least(*options):
    """Check numbers of the command line, each ``(option, values, least)``.

    Raises:
        UserError: a value is below its least one, infinite or no number.
    """
    for option, values, least in options:
        for value in values:
            if not least <= value < float('inf'):
                raise UserError(f'{option} {value}: must be {least} or more')


def check_output(option, path):
    """Check that a file can be written there, before anything is computed for it.

    Raises:
        UserError: it is a directory, or its folder does not exist.
    """
    if path.is_dir():
        raise UserError(f'{option} {path} is a directory')
    if not path.parent.is_dir():
        raise UserError(f'{option} {path}: there is no folder {path.parent}')
