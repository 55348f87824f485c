"""Commands run: mistakes of users become one line, runners are built, weights loaded."""

import logging
import os.path as osp
import re
import sys
from contextlib import contextmanager

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS, RUNNERS, VISUALIZERS, DefaultScope
from mmengine.runner import FlexibleRunner, Runner
from mmengine.runner.checkpoint import load_state_dict

from ..backbones.base import Backbone
from ..checkpoints import fit_state_dict, load_from_anywhere, load_whole
from ..configuration.types import find_type
from ..errors import UserError
from ..training.new_parameters import is_new
from .data_check import explain_data_errors, find_data_problem
from .harness import check_arguments


def run_tool(main):
    """Call ``main``; turn a :class:`UserError` into one line on stderr and exit status 2."""
    try:
        main()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        mistake = find_mistake(error)
        if mistake is None:
            raise
        print(f'ERROR: {mistake}', file=sys.stderr)
        sys.exit(2)


def find_mistake(error):
    """The :class:`UserError` in a chain of exceptions that says best what is wrong, or None."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    # This package raises errors 'from' others. One raised while another was handled is a copy
    # that some releases of mmengine's registry make, with the place of a class before the text.
    while error and not error.__suppress_context__ and isinstance(error.__context__, UserError):
        error = error.__context__
    return error


@contextmanager
def quiet():
    """Context without log lines below errors, such as that on each layer's initialisation."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def run_checked(cfg, splits, action):
    """Build a runner and call its method ``action``, with data problems explained.

    Args:
        cfg (Config): The complete config.
        splits (Sequence[str]): Whose data is needed, of 'train', 'val', 'test'.
        action (str): 'train' or 'test'.
    """
    problem = find_data_problem(cfg, splits)
    if problem:
        raise UserError(problem)
    with explain_data_errors(cfg, splits) as first_iteration, name_unregistered(cfg):
        runner = build_runner(cfg, whole=action == 'test')
        if hasattr(runner, 'register_hook'):  # classes of users may have none
            runner.register_hook(first_iteration)
        getattr(runner, action)()


# ---------------------------------------------------------------------- weights
def check_weights(model, checkpoint, name, whole=False):
    """Check that a checkpoint has weights for the model's backbones of this package.

    mmengine only lists what is missing, so that a model of random weights would be tested. Weights
    of sparse parameters that a dense model has no place for are a warning.

    Args:
        model (nn.Module): A detector, segmentor or classifier, or a wrapper for test-time
            augmentation around one.
        checkpoint (str): File or URL, in any form that ``init_cfg`` takes.
        name (str): Name of the option, for the message.
        whole (bool): Also check that it has all other parameters, but for those of auxiliary
            heads, which only train. It is loaded for that.

    Returns:
        int: Number of sparse tensors that the checkpoint does not have.

    Raises:
        UserError: it is no checkpoint, or one of another network.
    """
    try:
        state_dict = load_from_anywhere(checkpoint)['state_dict']
        new = count_new(model, state_dict)
        if any(map(is_new, state_dict)) and not any(map(is_new, model.state_dict())):
            print_log(
                f'{name} {checkpoint} is of a sparse model and this one is dense: its token '
                'predictors and fast paths are not used; --sparse RATIO makes the model sparse',
                'current',
                logging.WARNING,
            )
        if whole:
            load_whole(
                getattr(model, 'module', model),
                state_dict,
                optional=lambda key: is_new(key) or key.startswith('auxiliary_head'),
            )
    except UserError as error:
        raise UserError(f'{name} {checkpoint}: {error}') from error
    return new


def count_new(model, state_dict):
    """Fit a state dict to the backbones of this package in a model; nothing is loaded.

    Returns:
        int: Number of tensors that start new, since the network of the state dict has none of them.

    Raises:
        UserError: it is of another network.
    """
    new, saved = 0, set((model.module if is_model_wrapper(model) else model).state_dict())
    for path, module in model.named_modules():
        if isinstance(module, Backbone):
            prefix = path.removeprefix('module.') + '.'
            below = {
                key.removeprefix(prefix): value
                for key, value in state_dict.items()
                if key.startswith(prefix)
            }
            if not saved.issuperset(prefix + key for key in module.state_dict()):
                continue  # an adapter keeps its weights out of checkpoints; they are in init_cfg
            if not below and prefix != 'backbone.':
                raise UserError(
                    f"this model's backbone is {path}, and no weights are named so; what is of a "
                    'model within it goes into the init_cfg of that one'
                )
            new += len(fit_state_dict(below, module).new)
    return new


def load_weights(model, checkpoint, logger='silent'):
    """Load a model's weights, in any form that ``init_cfg`` takes; returns the whole checkpoint.

    No code from the file runs. Names that only one side has are logged, as mmengine does.
    """
    checkpoint = load_from_anywhere(checkpoint)
    _load(model, checkpoint, logger)
    return checkpoint


def _load(model, checkpoint, logger):
    state_dict = checkpoint['state_dict']
    names = {name: name.removeprefix('module.') for name in state_dict}
    state_dict = type(state_dict)((names[name], value) for name, value in state_dict.items())
    load_state_dict(model.module if is_model_wrapper(model) else model, state_dict, False, logger)


class ReadsAnyCheckpoint:
    """Mix-in of runners that read ``load_from`` as ``init_cfg`` is read, and run no code from it.

    That is when mmengine loads it: after the model has initialised itself, which some models do
    whatever they hold already, and before the first loop. A folder, which DeepSpeed writes, is left
    to mmengine.
    """

    def load_checkpoint(self, filename, *args, **kwargs):
        if osp.isdir(filename):
            return super().load_checkpoint(filename, *args, **kwargs)
        checkpoint = load_from_anywhere(filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if isinstance(self, FlexibleRunner):  # its strategy knows how the model is spread
            self.strategy.load_model_state_dict(checkpoint['state_dict'])
        else:
            _load(self.model, checkpoint, self.logger)
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint


# ---------------------------------------------------------------------- runners
def build_runner(cfg, whole=False):
    """Build the runner, of ``cfg.runner_type`` if that is set.

    Unless it resumes, it reads ``cfg.load_from`` in all forms that ``init_cfg`` takes, and runs no
    code from it. That is checked to fit the backbone, or the whole model. mmengine's
    FlexibleRunner has its model afterwards, too.

    Raises:
        UserError: the runner is unknown, an argument of a class of this package is, the model has
            a component that needs something absent, or ``cfg.load_from`` does not fit.
    """
    runner_class = find_runner_class(cfg)
    loads = cfg.get('load_from') and not cfg.get('resume')
    reads = getattr(runner_class, 'load_checkpoint', None)
    known = reads in (Runner.load_checkpoint, FlexibleRunner.load_checkpoint)
    if loads and known:
        runner_class = type(runner_class.__name__, (ReadsAnyCheckpoint, runner_class), {})
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        check_arguments(cfg.get('model'))
        for hook in cfg.get('custom_hooks') or []:
            if isinstance(hook, dict):  # the runner takes the priority out
                check_arguments({k: v for k, v in hook.items() if k != 'priority'}, HOOKS)
    try:
        with name_unregistered(cfg):
            runner = runner_class.from_cfg(cfg)
            if isinstance(runner, FlexibleRunner) and isinstance(runner.model, dict):
                # It would build its model when a loop begins, and takes one that is built.
                runner.model = runner.strategy.build_model(runner.model)
    except (ImportError, OSError, RuntimeError) as error:
        problem = _failing_component(cfg, error)
        if problem is None:
            raise
        raise UserError(f'{cfg.filename}: {problem}') from error
    if loads and not known:
        print_log(
            f'runner_type={cfg.runner_type!r} reads {cfg.load_from} in its own way, perhaps with '
            'code from the file; it is compared with the model only if the runner has one',
            'current',
            logging.WARNING,
        )
    model = getattr(runner, 'model', None)
    if loads and isinstance(model, nn.Module) and not osp.isdir(cfg.load_from):
        name = 'checkpoint' if whole else 'load_from'
        new = check_weights(model, cfg.load_from, name, whole)
        if new:
            print_log(
                f'{cfg.load_from} has no weights for {new} tensors of the '
                'backbone that its network does not have: they start new',
                'current',
                logging.WARNING,
            )
    return runner


def find_runner_class(cfg):
    """The class that ``cfg.runner_type`` names, mmengine's runner without.

    Raises:
        UserError: it is not registered.
    """
    if 'runner_type' not in cfg:
        return Runner
    runner_class = find_type(cfg.runner_type, RUNNERS, cfg.default_scope)
    if runner_class is None:
        raise UserError(f'{cfg.filename}: runner_type={cfg.runner_type!r} is not registered')
    return runner_class


@contextmanager
def name_unregistered(cfg):
    """Context in which a class that no registry has is a :class:`UserError`."""
    try:
        yield
    except (KeyError, TypeError) as error:
        said = re.search(r'([\w.]+) is not in the [\w:. -]+ registry', str(error.args[:1]))
        # Of optimizers, mmengine's constructor does not say it.
        absent = said[1] if said else _unregistered_optimizer(cfg.get('optim_wrapper'), cfg)
        if absent is None:
            raise
        raise UserError(
            f'{cfg.filename}: {absent} is not registered: check its name, or have the config '
            "import the package that has it: custom_imports = dict(imports=['PACKAGE'])"
        ) from error


def _unregistered_optimizer(config, cfg):
    """Type of the first optimizer in a config that no registry has, or None."""
    for key, value in config.items() if isinstance(config, dict) else ():
        kind = value.get('type') if key == 'optimizer' and isinstance(value, dict) else None
        if isinstance(kind, str):
            with OPTIMIZERS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
                if registry.get(kind) is None:
                    return kind
        found = _unregistered_optimizer(value, cfg)
        if found is not None:
            return found
    return None


def _failing_component(cfg, error):
    """Which component of a runner could not be built for want of something, or None.

    That is a package that is not installed, or a file that cannot be had (weights or a vocabulary
    that a component downloads).
    """
    text = ' '.join(str(error.args[0] if error.args else error).split())
    if isinstance(error, RuntimeError) and 'install' not in text:
        return None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        kind = _failing_type(cfg, error)
    return kind and f'{kind if isinstance(kind, str) else kind.__name__} cannot be built: {text}'


def _failing_type(cfg, error):
    """Type of the innermost config of a component that fails alone as the whole did, or None."""
    for registry, key in ((MODELS, 'model'), (VISUALIZERS, 'visualizer'), (HOOKS, 'custom_hooks')):
        for config in _innermost_first(cfg.get(key)):
            try:
                registry.build(config)
            except Exception as again:  # others lack what their owner would have given them
                if type(again) is type(error) and again.args == error.args:
                    return config['type']
    return None


def _innermost_first(config):
    """Yield each config with a type, after those within it."""
    if isinstance(config, dict):
        for value in config.values():
            yield from _innermost_first(value)
        if 'type' in config:
            yield config
    elif isinstance(config, (list, tuple)):
        for item in config:
            yield from _innermost_first(item)
