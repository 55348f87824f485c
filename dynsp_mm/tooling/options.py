"""What tools/train.py and tools/test.py share: from command-line options to a config.

Every function here changes a loaded config or checks it; nothing is built before the config is
complete. One code path serves mmdet, mmseg and mmpretrain; where they differ,
``cfg.default_scope`` decides.
"""

import argparse
import importlib.util
import logging
import os
import os.path as osp
import sys
import traceback

from mmengine.config import ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from ..backbones.base import Backbone
from ..checkpoints import fit_state_dict, load_from_anywhere, load_whole
from ..compat import has_accelerator
from ..configuration.read import LIBRARIES, leaf_datasets, read_config
from ..configuration.swap import HOOK_NAMES, parse_ratios, sparsify
from ..ops import BACKENDS
from ..training.new_parts import is_new


class UserError(Exception):
    """A mistake the user can mend; its text is all that the tools print."""


def run_tool(main):
    """Call ``main``; turn mistakes of the user into one line on stderr and exit status 2.

    These are :class:`UserError` and each ValueError that this package itself raised, such as for
    an argument of a backbone.
    """
    try:
        main()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else _own_message(error)
        if message is None:
            raise
        print(f'ERROR: {message}', file=sys.stderr)
        sys.exit(2)


def _own_message(error):
    """Text of the ValueError from this package in a chain of exceptions, or None."""
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        module = frames[-1].f_globals.get('__name__', '') if frames else ''
        if isinstance(error, ValueError) and module.split('.')[0] == 'dynsp_mm':
            return str(error)
        # Some releases of mmengine re-raise what a constructor raised, with other words.
        error = error.__cause__ or error.__context__
    return None


def add_config_options(parser):
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='entries of the config to override, e.g. train_dataloader.batch_size=4; lists as '
        'key="[a,b]" or key=a,b, nested ones as key="[(a,b),(c,d)]", quoted, without spaces',
    )


def add_sparse_option(parser):
    """Add ``--sparse``."""
    parser.add_argument(
        '--sparse',
        metavar='RATIO',
        help="swap the config's Swin or ConvNeXt "
        'backbone for its sparse counterpart: 0.7, or a ratio per predictor, '
        '0.7,0.5,0.3; the file is not changed',
    )


def enable_sparse(cfg, ratios):
    """Swap the backbone as ``--sparse`` says; None changes nothing.

    Raises:
        UserError: there is no backbone that can be swapped, or ``ratios`` are no numbers.
    """
    if ratios is None:
        return
    try:
        sparsify(cfg, parse_ratios(ratios))
    except ValueError as error:
        raise UserError(f'--sparse {ratios}: {error}') from error


def enable_from_dense(cfg, checkpoint):
    """Start from a dense checkpoint and learn from it, as ``--from-dense`` says.

    Raises:
        UserError: the file does not exist, or the config has no sparse training hook.
    """
    if checkpoint is None:
        return
    check_checkpoint(checkpoint, '--from-dense')
    hook = next(
        (hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') in HOOK_NAMES), None
    )
    if hook is None:
        raise UserError(
            f'{cfg.filename}: --from-dense needs a sparse model with its training '
            "hook; add --sparse RATIO, or dict(type='SpatialSparsityHook') to "
            'custom_hooks'
        )
    hook.teacher = cfg.load_from = checkpoint


def check_teachers(cfg):
    """Raise a :class:`UserError` if the checkpoint of a teacher is local and no file."""
    for hook in cfg.get('custom_hooks') or []:
        teacher = hook.get('teacher') if hook.get('type') in HOOK_NAMES else None
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
        '(default: work_dir of the config, else work_dirs/<config name>)',
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


def load_config(path, cfg_options=None):
    """Load a config file, or a library's own as ``mmdet::retinanet/...``, and override entries.

    Raises:
        UserError: the file or one of its bases is missing or no valid config, an override does
            not fit, or ``default_scope`` is unset or names a package that is not installed.
    """
    try:
        cfg = read_config(path)
    except ValueError as error:
        raise UserError(str(error)) from error
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
    _check_scope(cfg)
    return cfg


def _check_scope(cfg):
    scope = cfg.get('default_scope')
    if not scope:
        raise UserError(
            f'{cfg.filename}: default_scope is not set; the config must name the library that its '
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


def set_work_dir(cfg, work_dir=None):
    """Set ``cfg.work_dir``: the argument, else the config's, else work_dirs/<config name>."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(cfg.filename))[0])


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
    if cfg.default_scope != 'mmpretrain':
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
    wrapper_type = wrapper.get('type') or 'OptimWrapper'
    name = wrapper_type if isinstance(wrapper_type, str) else wrapper_type.__name__
    name = name.split('.')[-1]
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


def enable_visualization(cfg, show=False, show_dir=None, wait_time=2.0):
    """Make the library's visualization hook paint predictions in windows and/or into files.

    Args:
        show (bool): Open a window per image.
        show_dir (str, optional): Directory of the painted images, relative to the current one.
        wait_time (float): Seconds which a window stays.
    """
    if not show and show_dir is None:
        return
    option = '--show' if show else '--show-dir'
    scope = cfg.default_scope
    if scope not in LIBRARIES:
        raise UserError(
            f'{cfg.filename}: {option} works with {", ".join(LIBRARIES)}; '
            f'got default_scope={scope!r}'
        )
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        hook_type = dict(
            mmdet='DetVisualizationHook',
            mmseg='SegVisualizationHook',
            mmpretrain='VisualizationHook',
        )[scope]
        raise UserError(
            f'{cfg.filename}: {option} needs a visualization hook: '
            f"default_hooks = dict(visualization=dict(type='{hook_type}'))"
        )
    displays = ('DISPLAY', 'WAYLAND_DISPLAY', 'MPLBACKEND')
    if show and sys.platform == 'linux' and not any(os.environ.get(name) for name in displays):
        raise UserError('--show opens windows, but DISPLAY is not set; use --show-dir DIR')

    hook['enable' if scope == 'mmpretrain' else 'draw'] = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if scope == 'mmpretrain':
        hook.interval = 1  # its default paints every 5000th image
    if show_dir is None:
        return
    # mmdet puts a relative path under work_dir/<timestamp>; an absolute one means the same to all.
    show_dir = osp.abspath(show_dir)
    if scope == 'mmseg':
        require(cfg, 'visualizer')
        if show:
            raise UserError(
                '--show and --show-dir exclude each other with mmseg: '
                'its hook stops saving when it shows'
            )
        cfg.visualizer.save_dir = show_dir
    else:
        hook['test_out_dir' if scope == 'mmdet' else 'out_dir'] = show_dir


def enable_tta(cfg):
    """Wrap the model and replace the test pipeline as the config's TTA entries say."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if missing:
        raise UserError(
            f'{cfg.filename}: --tta needs tta_model and tta_pipeline in the config; '
            f'{" and ".join(missing)} not set'
        )
    require(cfg, 'test_dataloader')
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)
    for _, dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline


def enable_dump(cfg, out):
    """Add a metric that pickles all predictions to ``out``."""
    if not out.endswith(('.pkl', '.pickle')):
        hint = (
            '; label maps as PNG: --cfg-options test_evaluator.output_dir=DIR'
            if cfg.default_scope == 'mmseg'
            else ''
        )
        raise UserError(f'--out takes a file that ends in .pkl or .pickle; got {out}{hint}')
    require(cfg, 'test_evaluator')
    # mmdet's own stores masks run-length encoded.
    dump = ConfigDict(
        type='DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults', out_file_path=out
    )
    evaluator = cfg.test_evaluator
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        evaluator.metrics = [*_as_list(evaluator.metrics), dump]
    else:
        cfg.test_evaluator = [*_as_list(evaluator), dump]


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_weights(model, checkpoint, name, whole=False):
    """Check that a checkpoint has weights for the model's backbones of this package.

    mmengine only lists what is missing, so that a model of random weights would be tested. Weights
    of sparse parts that a dense model has no place for are a warning.

    Args:
        model (nn.Module): A detector, segmentor or classifier, or a wrapper for test-time
            augmentation around one.
        checkpoint (str): File or URL, in any form that ``init_cfg`` takes.
        name (str): Of the option, for the message.
        whole (bool): Also check that it has all other parameters, but for those of auxiliary
            heads, which only train. It is loaded for that.

    Returns:
        int: Number of tensors of sparse parts that the checkpoint does not have.

    Raises:
        UserError: it is no checkpoint, or one of another network.
    """
    new, sparse = 0, False
    try:
        state_dict = load_from_anywhere(checkpoint)['state_dict']
        for path, module in model.named_modules():
            if isinstance(module, Backbone):
                prefix = path.removeprefix('module.') + '.'
                below = {
                    key[len(prefix) :]: value
                    for key, value in state_dict.items()
                    if key.startswith(prefix)
                }
                new += len(fit_state_dict(below, module).new)
                sparse = sparse or any(is_new(key) for key, _ in module.named_parameters())
    except ValueError as error:
        raise UserError(f'{name} {checkpoint}: {error}') from error
    if not sparse and any(is_new(key) for key in state_dict):
        print_log(
            f'{name} {checkpoint} is of a sparse model and this one is dense: its token '
            'predictors and fast paths are not used; --sparse RATIO makes the model sparse',
            'current',
            logging.WARNING,
        )
    if whole:
        try:
            load_whole(
                getattr(model, 'module', model),
                state_dict,
                optional=lambda key: is_new(key) or key.startswith('auxiliary_head'),
            )
        except ValueError as error:
            raise UserError(f'{name} {checkpoint}: {error}') from error
    return new


def build_runner(cfg, whole=False):
    """Build the runner, of ``cfg.runner_type`` if that is set.

    Unless it resumes, it reads checkpoints in all forms that ``init_cfg`` takes, and runs no code
    from them. ``cfg.load_from`` is checked to fit the backbone, or the whole model.

    Raises:
        UserError: the runner is unknown, the model has a part that needs something absent, or
            ``cfg.load_from`` does not fit.
    """
    if not cfg.get('resume'):
        CheckpointLoader.register_scheme(
            ('', 'http://', 'https://'), load_from_anywhere, force=True
        )
    runner_class = Runner
    if 'runner_type' in cfg:
        with RUNNERS.switch_scope_and_registry(cfg.default_scope) as registry:
            runner_class = registry.get(cfg.runner_type)
        if runner_class is None:
            raise UserError(f'{cfg.filename}: runner_type={cfg.runner_type!r} is not registered')
    try:
        runner = runner_class.from_cfg(cfg)
    except (ImportError, KeyError, OSError, RuntimeError) as error:
        problem = _absent_part(error)
        if problem is None:
            raise
        raise UserError(f'{cfg.filename}: {problem}') from error
    if cfg.get('load_from') and not cfg.get('resume'):
        name = 'checkpoint' if whole else 'load_from'
        new = check_weights(runner.model, cfg.load_from, name, whole)
        if new:
            runner.logger.warning(
                f'{cfg.load_from} has no weights for {new} tensors of the '
                "backbone's sparse parts: they start new"
            )
    return runner


def _absent_part(error):
    """Which part of a model could not be built for want of something, or None.

    That is a class that is not registered, a package that is not installed, or a file that cannot
    be had (weights or a vocabulary that a part downloads).
    """
    frames = [
        frame
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == 'build_from_cfg'
    ]
    part = frames[-1].f_locals.get('obj_type') if frames else None
    if part is None:  # not while something was built from the config
        return None
    name = part if isinstance(part, str) else part.__name__
    text = ' '.join(str(error.args[0] if error.args else error).split())
    if isinstance(error, KeyError):
        if 'registry' not in text:
            return None
        return (
            f'{name} is not registered: check its name, or have the config import the package '
            "that has it: custom_imports = dict(imports=['PACKAGE'])"
        )
    if isinstance(error, RuntimeError) and 'install' not in text:
        return None
    return f'{name} cannot be built: {text}'
