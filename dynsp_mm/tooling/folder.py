"""What a training finds in its folder: what it would write anew, and what it would go on from."""

import copy
import inspect
import logging
import os
import os.path as osp
import re
from contextlib import suppress
from pickle import UnpicklingError

from mmengine._strategy import SingleDeviceStrategy
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, STRATEGIES, DefaultScope
from mmengine.runner import FlexibleRunner, Runner

from ..checkpoints import load_from_anywhere, load_whole
from ..configuration.types import find_type, is_type, type_name
from ..errors import UserError
from ..training.new_parameters import is_new
from .runs import count_new, find_runner_class, quiet

# What optimizers of torch keep of the gradients of a parameter, in its shape.
AVERAGES = ('exp_avg', 'exp_avg_sq', 'square_avg', 'momentum_buffer')
ELSEWHERE = 'give this run a folder of its own: --work-dir DIR'


def check_folder(cfg):
    """Check that a training replaces nothing that is needed and resumes only its own model.

    Nothing is written. A model is built and a checkpoint read only where the folder has one that
    would be replaced, or that would be resumed.

    Args:
        cfg (Config): The complete config.

    Raises:
        UserError: the run would replace a checkpoint that its config names or that a run of another
            model left, or it would resume from one that is missing, damaged or of another model or
            optimizer.
    """
    resumed = _find_resumed(cfg)
    model = start = None
    if resumed is not None and not osp.isdir(resumed):  # DeepSpeed's are folders
        model = _build_model(cfg)
        start = _check_resumed(cfg, resumed, model)
    replaced = _find_replaced(cfg, start or {})
    if not replaced:
        return
    _check_given(cfg, replaced, resumed)
    _check_left(cfg, replaced, resumed, model)


# ---------------------------------------------------------------------- resuming
def _find_resumed(cfg):
    """The checkpoint from which mmengine would resume, or None."""
    resume = cfg.get('resume')
    if not resume:
        return None
    if isinstance(resume, str):
        runner = find_runner_class(cfg)
        if inspect.isclass(runner) and issubclass(runner, FlexibleRunner):
            return resume
        if osp.exists(resume):  # to mmengine's other runner, any value is a plain yes
            print_log(
                f'resume={resume!r}: this runner goes on from load_from, else from the latest '
                'checkpoint of its folder, and not from that file; --resume FILE names one',
                'current',
                logging.WARNING,
            )
    if cfg.get('load_from'):
        return cfg.load_from
    latest = _read_pointer(cfg.work_dir)
    if latest is None or '://' in latest or osp.exists(latest):
        return latest
    pointer = osp.join(cfg.work_dir, 'last_checkpoint')
    there = _find_replaced(cfg, {}, ever=True)
    hint = f', such as {max(there, key=osp.getmtime)},' if there else ''
    raise UserError(
        f'{pointer} names {latest!r}, which is no file: name the checkpoint to go on from{hint} '
        f'with --resume FILE, or delete {pointer} to begin anew'
    )


def _read_pointer(work_dir):
    """What mmengine wrote down as the latest checkpoint of a folder; None without that file."""
    pointer = osp.join(work_dir, 'last_checkpoint')
    if not osp.isfile(pointer):
        return None
    with open(pointer, encoding='utf-8', errors='replace') as file:
        return file.read().strip()


def _build_model(cfg):
    """The model of a config with random weights; None if it fails, of which the run tells more."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:  # as mmengine's runner does
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with suppress(Exception), quiet(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(model)


def _check_resumed(cfg, path, model):
    """Check that a run can be resumed from a checkpoint; returns what that says of its progress."""
    try:
        checkpoint = load_from_anywhere(path)
    except UserError as error:
        reason = str(error.__cause__)
        if isinstance(error.__cause__, UnpicklingError) and (
            'GLOBAL' in reason or 'Can only' in reason
        ):
            return {}  # it has objects that only mmengine's reader builds
        raise UserError(
            f'the run cannot be resumed: {error}. An earlier checkpoint can be named: --resume FILE'
        ) from error
    problem = None
    if not {'meta', 'message_hub'} <= set(checkpoint):
        problem = 'it holds weights and not the state of a training'
    elif model is not None:
        problem = _other_model(model, checkpoint['state_dict']) or _other_state(
            cfg, model, checkpoint
        )
    if problem:
        problem = problem if problem.endswith('?') else f'{problem}.'
        way_on = _way_on(cfg, path, model, checkpoint['state_dict'])
        raise UserError(f'{path} cannot be resumed: {problem} {way_on}')
    return checkpoint['meta'] if isinstance(checkpoint['meta'], dict) else {}


def _way_on(cfg, path, model, state_dict):
    """What to do about a checkpoint that cannot be resumed, without what is done already."""
    own, theirs = model is not None and _predictors(model.state_dict()), _predictors(state_dict)
    named = cfg.get('load_from') or isinstance(cfg.resume, str)
    inside = osp.dirname(osp.abspath(path)) == osp.abspath(cfg.work_dir)
    steps = ['leave --resume FILE (or resume=True) out'] if named else []
    steps += ['take another --work-dir'] if inside or not named else []
    ways = [f'To begin anew, {" and ".join(steps)}.']
    if theirs and model is not None and not own:
        ways.insert(0, 'If --sparse was forgotten, give it as in the run that left the checkpoint.')
    # Resuming takes load_from of --from-dense away; the teacher that it sets stays.
    taught = any(isinstance(h, dict) and h.get('teacher') for h in cfg.get('custom_hooks') or [])
    start = f'--cfg-options load_from={path}' + (' and no --from-dense' if taught else '')
    if own and not theirs:
        start = '' if taught else f'--from-dense {path}'
    if start:
        ways.append(f'To start from its weights, also give {start}.')
    return ' '.join(ways)


def _other_state(cfg, model, checkpoint):
    """What in a checkpoint is not as training this model leaves it, or None."""
    problem = _other_weights(model, _without_wrapper(checkpoint['state_dict']))
    if problem:
        return problem
    if 'optimizer' not in checkpoint or not _has_plain_optimizer(cfg):
        return None
    try:
        with quiet(), DefaultScope.overwrite_default_scope(cfg.default_scope):
            wrapper = build_optim_wrapper(
                model, {'type': 'OptimWrapper', **copy.deepcopy(cfg.optim_wrapper)}
            )
    except Exception:  # the run tells more
        return None
    try:
        wrapper.load_state_dict(checkpoint['optimizer'])
    except (AssertionError, KeyError, ValueError) as error:
        text = error.args[0] if error.args else error
        return f'the state of its optimizer is for other groups of parameters ({text})'
    for optimizer in _optimizers(wrapper):
        if not all(map(_is_state_of, optimizer.state, optimizer.state.values())):
            return (
                'the state of its optimizer is for parameters in another order, as another '
                'optim_wrapper.constructor gives it'
            )
        lacking = sorted(set(optimizer.defaults) - set(optimizer.param_groups[0]))
        if lacking:
            return (
                f'its optimizer was another than {type(optimizer).__name__}: it has no '
                f'{", ".join(lacking)}'
            )
    return None


def _is_state_of(parameter, state):
    """Whether the averages that an optimizer keeps of gradients are of a parameter's shape."""
    averages = [
        state.get(key) for key in ('exp_avg', 'exp_avg_sq', 'square_avg', 'momentum_buffer')
    ]
    return all(value is None or value.shape == parameter.shape for value in averages)


def _has_plain_optimizer(cfg):
    """Whether a run builds its optimizer, and keeps the state of it, as mmengine's runner does."""
    runner = find_runner_class(cfg)
    if not inspect.isclass(runner):
        return False
    if issubclass(runner, FlexibleRunner):
        strategy = cfg.get('strategy')
        kind = find_type(strategy or SingleDeviceStrategy, STRATEGIES, cfg.get('default_scope'))
        steps = ('build_optim_wrapper', 'optim_state_dict', 'load_optim_state_dict', 'resume')
        return all(getattr(kind, s, None) is getattr(SingleDeviceStrategy, s) for s in steps)
    return getattr(runner, 'build_optim_wrapper', None) is Runner.build_optim_wrapper


def _optimizers(wrapper):
    several = getattr(wrapper, 'optim_wrappers', None)
    for single in several.values() if several else [wrapper]:
        yield single.optimizer


# ---------------------------------------------------------------------- replacing
def _find_replaced(cfg, start, ever=False):
    """The checkpoints, files or folders, that a run would write anew.

    Args:
        cfg (Config): The complete config.
        start (dict): Where the run begins, of 'epoch' and 'iter'; 0 for those that are not there.
        ever (bool): Also those whose turn would not come.
    """
    found = []
    for hook in _checkpoint_hooks(cfg):
        by_epoch = hook.get('by_epoch', True)
        folder = _folder(cfg, hook)
        template = hook.get('filename_tmpl') or ('epoch_{}.pth' if by_epoch else 'iter_{}.pth')
        name = r'(\d+)'.join(map(re.escape, re.split(r'\{[^{}]*\}', template)))
        best = '(?P<best>best_.+_)?' if hook.get('save_best') else '(?P<best>)'
        for entry in sorted(os.listdir(folder)) if osp.isdir(folder) else []:
            match = re.fullmatch(best + name, entry)
            if match is None or not osp.exists(osp.join(folder, entry)):  # a link to nothing
                continue
            step = int(match[match.lastindex]) if match.lastindex > 1 else None
            progress = start.get('epoch' if by_epoch else 'iter') or 0
            # A name without a number is that of every checkpoint.
            later = step is None or (step > progress and _is_saved(cfg, hook, step, match['best']))
            if ever or later:
                found.append(osp.join(folder, entry))
    return found


def _checkpoint_hooks(cfg):
    """Settings of the hooks that save checkpoints, by the names of mmengine's arguments."""
    named = {
        'checkpoint': dict(type='CheckpointHook', interval=1),
        **(cfg.get('default_hooks') or {}),
    }
    for hook in [*named.values(), *(cfg.get('custom_hooks') or [])]:
        if isinstance(hook, CheckpointHook):
            yield vars(hook)
        elif isinstance(hook, dict) and (hook is named['checkpoint'] or _saves(cfg, hook)):
            yield _settings(cfg, hook)


def _saves(cfg, hook):
    """Whether the config of a hook is of one that saves checkpoints, as its class or name says."""
    return type_name(hook).endswith('CheckpointHook') or is_type(
        hook, ['CheckpointHook'], HOOKS, cfg.get('default_scope')
    )


def _settings(cfg, hook):
    """The settings of a hook as it is built, for a class of a user may have other defaults."""
    built = None
    with suppress(Exception), quiet(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        built = HOOKS.build({k: copy.deepcopy(v) for k, v in hook.items() if k != 'priority'})
    return {**hook, **(vars(built) if built is not None else {})}


def _folder(cfg, hook):
    """Where a hook saves checkpoints; mmengine adds the name of the work directory to another."""
    folder = osp.abspath(cfg.work_dir)
    out_dir = hook.get('out_dir')
    if out_dir is None or str(out_dir) == folder:
        return cfg.work_dir
    return osp.join(str(out_dir).removeprefix('file://'), osp.basename(folder))


def _is_saved(cfg, hook, step, best):
    """Whether a hook saves a checkpoint at a step of the run, an epoch or an iteration."""
    unit = 'max_epochs' if hook.get('by_epoch', True) else 'max_iters'
    last = (cfg.get('train_cfg') or {}).get(unit)
    if last is not None and step > last:
        return False
    # A run of epochs may end at any iteration.
    if best or hook.get('save_best') or (last in (None, step) and hook.get('save_last', True)):
        return True
    interval, begin = hook.get('interval', -1), hook.get('save_begin', 0)
    return interval > 0 and step > begin and (step - begin) % interval == 0


def _check_given(cfg, replaced, resumed):
    """Check that the config names none of the checkpoints that its run would replace.

    Any entry counts, at any depth: a start, a teacher, pretrained weights, whatever their names.
    """
    files = {_identity(path): path for path in replaced}
    for key, value in _strings(dict(cfg.items())):
        path = files.get(_identity(value.removeprefix('file://')))
        if path is not None and value != resumed:
            raise UserError(
                f'{key}={value!r}, which this run is given, is the file {path} that it would '
                f'replace by a checkpoint of its own; {ELSEWHERE}'
            )


def _strings(config, key=''):
    """Yield (dotted key, text) of all texts in a config."""
    if isinstance(config, str):
        yield key, config
    elif isinstance(config, dict):
        for name, value in config.items():
            yield from _strings(value, f'{key}.{name}' if key else str(name))
    elif isinstance(config, (list, tuple)):
        for i, value in enumerate(config):
            yield from _strings(value, f'{key}.{i}')


def _identity(path):
    """The same for all names of a file, also through links; None for what does not exist."""
    with suppress(OSError, ValueError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None


def _check_left(cfg, replaced, resumed, model):
    """Check that a run replaces no checkpoint that a run of another model left in its folder.

    The latest of the folder tells, and the oldest and the newest of those that would be replaced:
    several runs may have left some.
    """
    by_age = sorted(filter(osp.isfile, replaced), key=osp.getmtime)
    latest = _read_pointer(cfg.work_dir)
    paths = [latest] if latest and osp.isfile(latest) else []
    known = {None if resumed is None else _identity(resumed)}
    for path in [*paths, *by_age[-1:], *by_age[:1]]:
        if _identity(path) in known:
            continue
        known.add(_identity(path))
        model = model or _build_model(cfg)
        problem = model is not None and _find_other(model, path)
        if problem:
            more = f' to {osp.basename(replaced[-1])}' if replaced[1:] else ''
            raise UserError(
                f'{path} is of another model than this run trains ({problem}), and this run would '
                f'replace {replaced[0]}{more}; {ELSEWHERE}'
            )


def _find_other(model, path):
    """Why a checkpoint is of another model, or None."""
    try:
        state_dict = load_from_anywhere(path)['state_dict']
    except UserError:  # nobody can say what it is
        return None
    return _other_model(model, state_dict) or _other_parts(model, state_dict)


# ---------------------------------------------------------------------- comparing
def _other_model(model, state_dict):
    """Why a state dict is of another model, as its backbones show, or None."""
    state_dict = _without_wrapper(state_dict)
    own, theirs = _predictors(model.state_dict()), _predictors(state_dict)
    if own != theirs:
        if not theirs:
            return 'it is of a dense model, and this one is sparse'
        if not own:
            return 'it is of a sparse model, and this one is dense'
        return (
            'its token predictors and fast paths are others: only one of the two has '
            f'{min(own ^ theirs)}'
        )
    try:
        count_new(model, state_dict)
    except UserError as error:
        return str(error)
    return None


def _other_parts(model, state_dict):
    """Why a state dict is of a model with other heads or parts, or None.

    Auxiliary heads and what losses learn do not count: they only train.
    """
    state_dict = {k: v for k, v in _without_wrapper(state_dict).items() if not _only_trains(k)}
    problem = _other_weights(model, state_dict, _only_trains)
    if problem:
        return problem
    own = model.state_dict()
    parts = {name for name, _ in model.named_modules()}
    # A module may make a tensor of its own when it first runs, but no module.
    others = [k for k in state_dict if k not in own and k.rpartition('.')[0] not in parts]
    if others:
        return (
            f'{len(others)} of its tensors have no place in this {type(model).__name__}, such as '
            f'{others[0]}'
        )
    return None


def _other_weights(model, state_dict, optional=lambda key: False):
    """Which parameters of a model a state dict does not have as they are, or None."""
    own = model.state_dict()
    try:
        with quiet():
            # Hooks of a model may keep entries out of its state dict.
            load_whole(model, state_dict, lambda key: key not in own or optional(key))
    except UserError as error:
        return str(error)
    return None


def _only_trains(key):
    return any(part.startswith('aux') or 'loss' in part for part in key.split('.'))


def _predictors(state_dict):
    return {key for key in state_dict if is_new(key)}


def _without_wrapper(state_dict):
    return {key.removeprefix('module.'): value for key, value in state_dict.items()}
