"""Sparse training as a hook: the model, its config and its checkpoint stay plain."""
import inspect
from contextlib import ExitStack
from numbers import Real
from typing import Any, Dict, Optional

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..layers import TokenPredictor
from ..recording import DecisionLog, record_decisions
from .losses import keep_ratio_loss


@HOOKS.register_module()
class SparseTrainingHook(Hook):
    """Adds the losses of sparse training to what the model returns in ``mode='loss'``.

    Works on any detector, segmentor or classifier with a sparse backbone::

        custom_hooks = [dict(type='SparseTrainingHook')]

    Each training step's logs then show ``loss_keep_ratio`` and, for each predictor k, the
    realised share of slow positions, ``keep_ratio_k``.

    Args:
        keep_ratio_weight: Weight of the keep-ratio loss (10 in the code of arXiv 2207.01580); 0
            switches it off.

    Raises:
        ValueError: For a negative weight; before training, for a model without predictors.
    """

    priority = 'NORMAL'

    def __init__(self, keep_ratio_weight: float = 10.0):
        if isinstance(keep_ratio_weight, bool) or not isinstance(keep_ratio_weight, Real) \
                or not 0 <= keep_ratio_weight < float('inf'):
            raise ValueError(f'keep_ratio_weight={keep_ratio_weight!r}: must be a number >= 0')
        self.keep_ratio_weight = float(keep_ratio_weight)
        self._handles = []
        # Open while a forward in loss mode runs.
        self._recording: Optional[ExitStack] = None
        self._log = DecisionLog()

    def before_train(self, runner) -> None:
        """Starts to listen on the unwrapped model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.attach(model)

    def after_train(self, runner) -> None:
        """Leaves the model as it was found."""
        self.detach()

    def attach(self, model: nn.Module) -> None:
        """Registers the hook on a model; :meth:`before_train` does it in a runner."""
        self.detach()
        if not any(isinstance(module, TokenPredictor) for module in model.modules()):
            raise ValueError(f'SparseTrainingHook: {type(model).__name__} has no token predictors; '
                             'remove the hook, or give a DynamicSwin, DynamicSwinV2 or '
                             'DynamicConvNeXt backbone keep_ratios below 1')
        self._mode = inspect.signature(model.forward)
        self._handles = [
            model.register_forward_pre_hook(self._start, with_kwargs=True),
            model.register_forward_hook(self._finish, with_kwargs=True, always_call=True)
        ]

    def detach(self) -> None:
        """Removes the hook from its model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _start(self, model: nn.Module, args: tuple, kwargs: Dict[str, Any]) -> None:
        bound = self._mode.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.arguments.get('mode') == 'loss':
            self._recording = ExitStack()
            self._log = self._recording.enter_context(record_decisions(model))

    def _finish(self, model: nn.Module, args: tuple, kwargs: Dict[str, Any],
                output: Any) -> None:
        if self._recording is None:
            return
        self._recording.close()
        self._recording = None
        log, self._log = self._log, DecisionLog()
        if output is None:  # the forward raised
            return
        if not isinstance(output, dict):
            raise TypeError(f"SparseTrainingHook: {type(model).__name__}.forward(mode='loss') "
                            f'returned a {type(output).__name__}: must be a dict of losses')
        self._add_losses(output, log)

    def _add_losses(self, losses: Dict[str, Any], log: DecisionLog) -> None:
        # Frozen predictors, a teacher's for instance, decide as at inference.
        trained = DecisionLog(record for record in log if record.decision.mask is not None)
        if trained and self.keep_ratio_weight:
            losses['loss_keep_ratio'] = self.keep_ratio_weight * keep_ratio_loss(
                [decision.mask for decision in trained.decisions],
                [decision.target for decision in trained.decisions])
        # No "loss" in the name: the runner logs it and does not add it to the sum.
        for k, decisions in enumerate((trained or log).by_predictor().values()):
            ratios = [decision.keep_ratio.mean() for decision in decisions]
            losses[f'keep_ratio_{k}'] = sum(ratios) / len(ratios)
