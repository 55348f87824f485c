"""Lowers keep ratios while a sparse model trains."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from ...backbones.base import Backbone
from ...errors import UserError, check_choice, check_counts, check_number
from ..new_parameters import find_sparse_backbones

# Share of the way from the start to the target, at a share of the span.
CURVES = dict(
    linear=lambda progress: progress, cosine=lambda progress: (1 - math.cos(math.pi * progress)) / 2
)


@HOOKS.register_module()
class KeepRatioAnnealingHook(Hook):
    """Takes keep ratios from those of the dense network to the config's, little by little.

    Each predictor goes its own way from ``start`` to the ratio that its backbone was built with,
    or that somebody set since; the ratio at which another run stopped on its way does not count. A
    run that is interrupted leaves the ratios of the moment, and the next ``SpatialSparsityHook``
    puts the model's own back::

        custom_hooks = [dict(type='SpatialSparsityHook'),
                        dict(type='KeepRatioAnnealingHook', begin=1, end=8)]

    Ratios change before each iteration, also when epochs are counted, and depend on nothing but
    the epoch and the iteration, so a run resumes. Validation uses the ratios reached by then.
    Checkpoints hold no ratios: outside training, one from midway runs with the config's, so
    ``save_best`` of a ``CheckpointHook`` and an ``EarlyStoppingHook`` want ``val_begin`` of the
    loop at ``end`` or later. Training that ends on the way warns. The log shows
    ``target_keep_ratio_k`` of each predictor k.

    Args:
        end: Epoch or iteration from which on the config's ratios hold.
        begin: Epoch or iteration until which ``start`` holds.
        by_epoch: Whether ``begin`` and ``end`` count epochs; iterations if not.
        start: Ratio of all predictors at the start, in (0, 1]. At 1.0 as well, both paths are
            trained and the predictors sample their decisions.
        curve: Way from start to target: 'linear', or 'cosine' for half a period, which is flat at
            both ends.

    Raises:
        UserError: For a bad argument; before training, for a model without token predictors,
            for a ``start`` below a predictor's ratio, and for a loop that counts iterations if
            ``by_epoch``.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        end: int,
        begin: int = 0,
        by_epoch: bool = True,
        start: float = 1.0,
        curve: str = 'linear',
    ):
        check_counts(begin=begin, least=0)
        check_counts(end=end)
        if begin >= end:
            raise UserError(f'begin={begin!r}, end={end!r}: begin must be less than end')
        if not isinstance(by_epoch, bool):
            raise UserError(f'by_epoch={by_epoch!r}: must be True or False')
        check_number('start', start, 0, 1, low_open=True)
        check_choice('curve', curve, tuple(CURVES))
        self.begin, self.end, self.by_epoch = int(begin), int(end), by_epoch
        self.start, self.curve = float(start), curve
        self._backbones: list[Backbone] = []  # while training

    def before_train(self, runner) -> None:
        """Notes the targets and sets the ratios that hold where training begins or goes on."""
        name = type(self).__name__
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise UserError(
                f'{name}: end={self.end} counts epochs but the training loop counts '
                'iterations; set by_epoch=False and give begin and end in iterations'
            )
        backbones = list(find_sparse_backbones(runner.model, name).values())
        for backbone in backbones:
            target = backbone.plan.targets
            if max(target) > self.start:
                raise UserError(
                    f'{name}: start={self.start}: must not be less than a keep ratio '
                    f'of the model; its keep_ratios are {target}'
                )
        self._backbones = backbones
        length, unit = (
            (runner.max_epochs, 'epoch') if self.by_epoch else (runner.max_iters, 'iteration')
        )
        if self.end > length:
            for backbone in backbones:
                _warn(
                    f'{name}: keep ratios change from {unit} {self.begin} to {self.end} but '
                    f'training ends after {unit} {length}: they reach '
                    f'({_text(self._ratios(backbone, length))}) and not {backbone.plan.targets}'
                )
        if self._validates_on_the_way(runner):
            for text in _judgements(runner.hooks):
                _warn(
                    f'{name}: {text}, also by validations before {unit} {self.end}, which keep '
                    'more than the config says; let validation begin later (train_cfg.val_begin)'
                )
        self._set(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Sets the ratios of the iteration, and logs them."""
        self._set(runner, batch_idx)
        ratios = [ratio for backbone in self._backbones for ratio in backbone.keep_ratios]
        for k, ratio in enumerate(ratios):
            runner.message_hub.update_scalar(f'train/target_keep_ratio_{k}', ratio)

    def before_val(self, runner) -> None:
        """Sets the ratios reached, which after the last epoch of the span are the targets."""
        self._set(runner)

    def after_train(self, runner) -> None:
        """Leaves the model with the ratios reached."""
        self._set(runner)
        ended = runner.epoch if self.by_epoch else runner.iter
        length = runner.max_epochs if self.by_epoch else runner.max_iters
        if ended < min(self.end, length):  # else it was said before training, or is no fault
            for backbone in self._backbones:
                _warn(
                    f'{type(self).__name__}: training ended before '
                    f'{"epoch" if self.by_epoch else "iteration"} {self.end}, at keep ratios of '
                    f'({_text(backbone.keep_ratios)}): the model was never trained at those of '
                    f'the config, {backbone.plan.targets}, with which its checkpoints run; train '
                    'on, or choose an earlier end'
                )
        self._backbones = []

    def _validates_on_the_way(self, runner) -> bool:
        """Whether a validation may come before the targets are reached."""
        loop_counts_epochs = not isinstance(runner.train_loop, IterBasedTrainLoop)
        begin = getattr(runner.train_loop, 'val_begin', 1)
        if loop_counts_epochs and not self.by_epoch:
            begin *= len(runner.train_dataloader)
        return begin < self.end

    def _set(self, runner, batch_idx: int = 0) -> None:
        if not self._backbones:  # validation without training
            return
        position = (
            runner.epoch + batch_idx / len(runner.train_dataloader)
            if self.by_epoch
            else runner.iter
        )
        for backbone in self._backbones:
            backbone.plan.anneal(self._ratios(backbone, position))

    def _ratios(self, backbone: Backbone, position: float) -> tuple[float, ...]:
        """Computes the ratios of a backbone's predictors at an epoch or iteration."""
        progress = (position - self.begin) / (self.end - self.begin)
        share = CURVES[self.curve](min(max(progress, 0.0), 1.0))
        return tuple((1 - share) * self.start + share * target for target in backbone.plan.targets)


def _judgements(hooks: Iterable[Hook]) -> Iterator[str]:
    """What hooks do by the metrics of validations."""
    if any(getattr(hook, 'save_best', None) for hook in hooks):
        yield 'a checkpoint is chosen by save_best'
    if any(isinstance(hook, EarlyStoppingHook) for hook in hooks):
        yield 'the EarlyStoppingHook ends training'


def restore_ratios(asker: str, backbones: Mapping[str, Backbone]) -> None:
    """Puts back the ratios that backbones were built with, where a run left them on their way."""
    for name, backbone in backbones.items():
        left, target = backbone.keep_ratios, backbone.plan.targets
        if left != target:
            backbone.plan.anneal(target)
            _warn(
                f'{asker}: keep_ratios of {name or type(backbone).__name__} are {target} again: a '
                f'{KeepRatioAnnealingHook.__name__} that did not come to its end left them at '
                f'({_text(left)})'
            )


def _text(ratios: Sequence[float]) -> str:
    return ', '.join(f'{ratio:.4g}' for ratio in ratios)


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
