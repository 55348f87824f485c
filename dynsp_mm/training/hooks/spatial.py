"""Sparse training as a hook: the model, its config and its checkpoint stay plain."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS

from ... import families
from ...backbones.base import Backbone
from ...errors import UserError, check_number
from ...recording import Recorder
from ...sparsity import Decision, TokenPredictor
from ..distillation import Distillation, has_weight, parse_map_weight
from ..losses import keep_ratio_loss
from ..new_parameters import find_sparse_backbones, find_unloaded
from ..teacher import TeacherSpec
from ..untrained import warn_slow, warn_untrained
from .annealing import KeepRatioAnnealingHook, restore_ratios
from .hold import restore_rates
from .watch import TrainingWatch, mode_of, trained_module, why_cut_off


def supervise(backbones: Iterable[nn.Module], held: bool) -> None:
    """Says to sparse backbones whether something holds their keep ratios in training.

    A backbone that trains while nothing does warns once.
    """
    for backbone in backbones:
        backbone.plan.supervised = held


def _hooks_on(model: nn.Module) -> list['SpatialSparsityHook']:
    """Those that are attached to a model."""
    owners = [getattr(hook, '__self__', None) for hook in model._forward_pre_hooks.values()]
    return [owner for owner in owners if isinstance(owner, SpatialSparsityHook)]


@HOOKS.register_module()
class SpatialSparsityHook(Hook):
    """Adds the losses of sparse training to what the model returns in ``mode='loss'``.

    Works on any detector, segmentor or classifier with a sparse backbone::

        custom_hooks = [dict(type='SpatialSparsityHook', teacher='dense.pth')]

    Each training step's logs then show ``loss_keep_ratio``, the terms of the distillation
    (``loss_distill_map_0`` for the first map, ..., ``loss_distill_logits``), and, for each
    trained predictor k, the realised share of slow positions, ``keep_ratio_k``. Predictors that are
    frozen decide as at inference and do not count; those of frozen copies inside the model neither.
    Predictors and fast paths that are new and that the run will not train are warned of.

    The losses are those of arXiv 2207.01580, whose distillation compares the logits and the
    normalised map of a classifier with a dense one's. In dense prediction each normalised map that
    goes to the neck is compared, and in semantic segmentation the logits at each position.

    The teacher is frozen, in eval mode, on the device and in the dtype of the student, and no
    module of it: checkpoints, optimizers, averaged copies and distributed wrappers do not see it.
    It looks at the input of the student's backbone, after all augmentation.

    An iteration that trains the backbone without such a forward is warned of once, as where a
    ``train_step`` calls ``self.loss`` and not the model, and a forward that trains no predictor, as
    where the backbone is in eval mode or without gradients. A run that was interrupted leaves its
    hook, and the keep ratios and rates of the moment; the hook of the next run replaces it and puts
    those back.

    Args:
        keep_ratio_weight: Weight of the keep-ratio loss (10 in the authors' code); 0 switches it
            off.
        teacher: Checkpoint of the dense model, file or URL, where that is the student's own config
            with ``keep_ratios=None`` and without a ``LoRAModel`` around it; or
            ``dict(checkpoint=FILE, config=CONFIG)`` for another
            one, by its config file or model dict. In Python also the dense model itself, which is
            then frozen. None for no distillation.
        map_weight: Weight of the mean squared difference of each map, or a weight for each map
            from fine to coarse; default 0.5.
        logit_weight: Weight of the KL divergence of the logits; default 0.5 for classifiers and
            segmentors that take a softmax over classes, 0 for detectors and other models, and,
            with a warning, where the teacher is for other classes or there are no logits to
            compare; given, that is an error.
            Terms of weight 0 are not computed; if all are 0 there is no teacher.

    Raises:
        UserError: For a negative weight, or one of distillation without a teacher; before
            training, for a model without predictors, a teacher that cannot be built or loaded, or
            whose maps or logits are not of the student's sizes.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        keep_ratio_weight: float = 10.0,
        teacher: None | str | Mapping | nn.Module = None,
        map_weight: None | float | Sequence[float] = None,
        logit_weight: float | None = None,
    ):
        self.keep_ratio_weight = float(check_number('keep_ratio_weight', keep_ratio_weight, low=0))
        self.map_weight = parse_map_weight(map_weight)
        self.logit_weight = (
            None
            if logit_weight is None
            else float(check_number('logit_weight', logit_weight, low=0))
        )
        self.teacher = None if teacher is None else TeacherSpec.parse(teacher)
        wants_maps = map_weight is not None and has_weight(self.map_weight)
        if teacher is None and (wants_maps or logit_weight):
            name, value = (
                ('map_weight', map_weight) if wants_maps else ('logit_weight', logit_weight)
            )
            raise UserError(
                f'{name}={value!r}: needs a teacher; set teacher to the checkpoint of '
                'the dense model'
            )
        self.distillation: Distillation | None = None
        self._handles = []
        self._backbones: list[nn.Module] = []
        self._predictors: list[TokenPredictor] = []
        # Open while a forward in loss mode runs.
        self._recording: ExitStack | None = None
        self._decisions: dict[int, list[Decision]] = {}  # by number of the predictor
        self._as_at_inference: set[int] = set()  # numbers of those that decided so
        self._said = False
        self._annealed = False  # whether another hook of the run sets the ratios
        self._students: dict[str, Backbone] = {}
        self._looks = 0  # after iterations, for what they left untrained
        self._untrained: set[str] = set()  # what was named as such
        self._watch: TrainingWatch | None = None
        self._unloaded: list[str] = []

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Notes what ``load_from`` leaves as it was drawn."""
        self._unloaded = find_unloaded(runner.model, checkpoint)

    def before_train(self, runner) -> None:
        """Builds the teacher and starts to listen on the unwrapped model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._annealed = any(
            isinstance(hook, KeepRatioAnnealingHook) for hook in getattr(runner, 'hooks', ())
        )
        self.attach(model, runner.cfg, getattr(runner, 'optim_wrapper', None))
        warn_slow(self._unloaded, runner.cfg)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Forgets what an iteration before has trained."""
        if self._watch is not None:
            self._watch.begin()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Warns once of training that went past the hook, and of what was frozen since."""
        if self._watch is not None:
            self._watch.end(type(self).__name__, runner.iter + 1)
        if self._students and self._looks < 2:
            self._looks += 1
            self._look_again(runner)

    def after_train(self, runner) -> None:
        """Leaves the model as it was found."""
        self.detach()
        self._annealed = False

    def _look_again(self, runner) -> None:
        """Looks for what hooks of users have frozen since this one was attached.

        Their warm-up may begin at a rate of 0, so that rates count from the second iteration on.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        warn_untrained(
            type(self).__name__,
            trained_module(model),
            self._students,
            runner.optim_wrapper if self._looks == 2 else None,
            runner.cfg,
            self._untrained,
        )

    def attach(
        self,
        model: nn.Module,
        cfg: Config | None = None,
        optim_wrapper: OptimWrapper | OptimWrapperDict | None = None,
    ) -> None:
        """Registers the hook on a model; :meth:`before_train` does it in a runner.

        Args:
            model: Detector, segmentor or classifier.
            cfg: Config of the run, for a teacher that is given by its checkpoint alone.
            optim_wrapper: What trains it, to find what that leaves out.
        """
        self.detach()
        name = type(self).__name__
        model = trained_module(model)
        for other in _hooks_on(model):
            other.detach()
            print_log(
                f'{name}: replaces the one that was on this {type(model).__name__}, as a run that '
                'did not end leaves it',
                'current',
                logging.WARNING,
            )
        backbones = find_sparse_backbones(model, name)
        if not self._annealed:
            restore_ratios(name, backbones)
        restore_rates(name, optim_wrapper)
        _start_by_keeping(name, backbones)
        self._students, self._looks, self._untrained = backbones, 0, set()
        self._said = False
        warn_untrained(name, model, backbones, optim_wrapper, cfg, self._untrained)
        self._predictors = [p for backbone in backbones.values() for p in backbone.token_predictors]
        # Frozen copies too: whoever trains the student answers for them.
        self._backbones = [m for m in model.modules() if families.takes_decisions(m)]
        supervise(self._backbones, True)
        if self.teacher is not None:
            try:
                self.distillation = Distillation.build(
                    model, list(backbones), self.teacher, cfg, self.map_weight, self.logit_weight
                )
            except Exception:
                self.detach()
                raise
        if self.distillation is not None:
            print_log(
                f'{name}: teacher {self.distillation.teacher.name}, weights of maps '
                f'{self.distillation.map_weights}, of logits {self.distillation.logit_weight}',
                'current',
            )
        if self.keep_ratio_weight or self.distillation is not None:
            self._watch = TrainingWatch(model, self._predictors, self._backbones)
        self._handles = [
            model.register_forward_pre_hook(self._start, with_kwargs=True),
            model.register_forward_hook(self._finish, with_kwargs=True, always_call=True),
        ]

    def detach(self) -> None:
        """Removes the hook from its model and forgets the teacher."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stop_recording()
        supervise(self._backbones, False)
        self._backbones, self._predictors, self._students = [], [], {}
        self.distillation = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _start(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._stop_recording()  # a forward was interrupted by the user
        if mode_of(model, args, kwargs) == 'loss':
            self._as_at_inference = set()
            self._recording = ExitStack()
            self._recording.enter_context(
                Recorder(model, {p: partial(self._note, k) for k, p in enumerate(self._predictors)})
            )
            if self.distillation is not None:
                self._recording.enter_context(self.distillation.recorder)

    def _stop_recording(self) -> dict[int, list[Decision]]:
        """Stops to listen inside the model, and returns and forgets what was heard."""
        if self._recording is not None:
            self._recording.close()
            self._recording = None
        decisions, self._decisions = self._decisions, {}
        return decisions

    def _note(
        self, k: int, name: str, predictor: TokenPredictor, args: tuple, decision: Decision
    ) -> None:
        # Predictors that are not trained decide as at inference, without a mask.
        if decision.mask is None:
            self._as_at_inference.add(k)
        else:
            self._decisions.setdefault(k, []).append(decision)

    def _finish(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if self._recording is None:
            return
        decisions = self._stop_recording()
        if output is None:  # the forward raised
            return
        if not isinstance(output, dict):
            raise TypeError(
                f"{type(self).__name__}: {type(model).__name__}.forward(mode='loss') "
                f'returned a {type(output).__name__}: must be a dict of losses'
            )
        self._add_losses(output, decisions)
        self._check_trained(model, decisions)
        if self._watch is not None:
            explained = self._said or not any(p.learns for p in self._predictors)
            self._watch.note(heard=bool(decisions) or explained)

    def _add_losses(self, losses: dict[str, Any], decisions: dict[int, list[Decision]]) -> None:
        taken = [decision for k in sorted(decisions) for decision in decisions[k]]
        if taken and self.keep_ratio_weight:
            losses['loss_keep_ratio'] = self.keep_ratio_weight * keep_ratio_loss(
                [decision.mask for decision in taken],
                [decision.target for decision in taken],
                [decision.content for decision in taken],
            )
        if self.distillation is not None:
            losses.update(self.distillation.losses())
        # No "loss" in the name: the runner logs it and does not add it to the sum.
        for k in sorted(decisions):
            ratios = [decision.keep_ratio.mean() for decision in decisions[k]]
            losses[f'keep_ratio_{k}'] = sum(ratios) / len(ratios)

    def _check_trained(self, model: nn.Module, decisions: dict[int, list[Decision]]) -> None:
        """Warns once of predictors that a forward was to train and does not."""
        if self._said or not (model.training and torch.is_grad_enabled()):
            return
        if decisions and not self.keep_ratio_weight:
            return
        # Beside others, those that decide as at inference are of a copy, such as a teacher.
        asked = set(decisions) or self._as_at_inference
        reason = why_cut_off(
            {k: (self._predictors[k], decisions.get(k, ())) for k in sorted(asked)}
        )
        if reason:
            self._said = True
            print_log(f'{type(self).__name__}: {reason}', 'current', logging.WARNING)


def _start_by_keeping(asker: str, backbones: Mapping[str, Backbone]) -> None:
    """Gives new predictors their start, which an ``init_cfg`` around the backbone overwrote."""
    undecided = {
        f'{name}.token_predictors.{k}'.lstrip('.'): predictor
        for name, backbone in backbones.items()
        for k, predictor in enumerate(backbone.token_predictors)
        if predictor.is_undecided()
    }
    for predictor in undecided.values():
        predictor.start_by_keeping()
    if undecided:
        print_log(
            f'{asker}: {", ".join(undecided)} were drawn by the init_cfg of a module around the '
            'backbone; they start by keeping nearly all positions all the same',
            'current',
            logging.WARNING,
        )
