"""Which forwards of a model give losses, and what trains it without one."""

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from ...sparsity import Decision, TokenPredictor


def mode_of(model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Value of the argument ``mode`` that a model is called with; None where there is none.

    Where ``forward`` takes ``*args`` or ``**kwargs``, the class that it inherits from says which
    argument is the mode, and what it is by default.
    """
    if 'mode' in kwargs:
        return kwargs['mode']
    inherited = [vars(cls)['forward'] for cls in type(model).__mro__ if 'forward' in vars(cls)]
    for forward, given in [(model.forward, args), *((f, (model, *args)) for f in inherited)]:
        signature = inspect.signature(forward)
        if 'mode' in signature.parameters:
            try:
                bound = signature.bind(*given, **kwargs)
            except TypeError:  # the class hands on other arguments than it is given
                return None
            bound.apply_defaults()
            return bound.arguments['mode']
    return None


def trained_module(model: nn.Module) -> nn.Module:
    """The module that a training step calls.

    An adapter around a whole model, such as mmpretrain's ``LoRAModel``, hands on the model's
    ``train_step``, which does not call the adapter.
    """
    owner = getattr(getattr(model, 'train_step', None), '__self__', None)
    return next((module for module in model.modules() if module is owner), model)


def why_cut_off(asked: Mapping[int, tuple[TokenPredictor, Sequence[Decision]]]) -> str | None:
    """Why a forward that trains does not train token predictors, and the way on.

    Args:
        asked: Number -> a predictor that decided in the forward, and the decisions that it sampled.

    Returns:
        None where it trains all that are not frozen.
    """
    without_mode, without_gradients = [], []
    for k, (predictor, sampled) in asked.items():
        if predictor.learns:
            if not any(decision.mask.requires_grad for decision in sampled):
                without_gradients.append(str(k))
        elif any(parameter.requires_grad for parameter in predictor.parameters()):
            without_mode.append(str(k))
    if without_mode:
        return (
            f'nothing trains token predictors {", ".join(without_mode)}: they are in eval mode '
            'while the model trains, so they decide as at inference and no loss_keep_ratio counts '
            'them; leave the backbone in training mode, or freeze them (requires_grad=False) if '
            'that is meant'
        )
    if without_gradients:
        return (
            'loss_keep_ratio does not train token predictors '
            f'{", ".join(without_gradients)}: they run without gradients, as under '
            'activation_checkpointing of the sparse stage or of a module around the backbone, or '
            'under torch.no_grad; leave that out and set with_cp=True of the backbone instead'
        )
    return None


class TrainingWatch:
    """Notices iterations in which backbones are trained and no losses are added.

    Gradients tell, whoever computes them, in which order, and with which optimizer. Steps that
    leave the backbone alone, as those of a discriminator, need no losses.

    Args:
        model: Model that trains.
        predictors: Its trained token predictors.
        backbones: Its sparse backbones.
    """

    def __init__(
        self, model: nn.Module, predictors: Iterable[nn.Module], backbones: Iterable[nn.Module]
    ) -> None:
        self._model = type(model).__name__
        self._said = self._trained = self._passed = self._heard = False
        self._handles = [
            trained[-1].register_post_accumulate_grad_hook(self._note_gradient)
            for module in (*predictors, *backbones)
            if (trained := [p for p in module.parameters() if p.requires_grad])
        ]

    def begin(self) -> None:
        """An iteration begins."""
        self._trained = self._passed = self._heard = False

    def note(self, heard: bool) -> None:
        """Notes a forward in loss mode.

        Args:
            heard: Whether the decisions of trained predictors were heard in it.
        """
        self._passed = True
        self._heard |= heard

    def end(self, asker: str, iteration: int) -> None:
        """An iteration ends: warns once if it trained without losses.

        Args:
            asker: Name of the hook for the message.
            iteration: Its number, counted from 1.
        """
        if self._said or not self._trained or self._heard:
            return
        self._said = True
        what = (
            'the decisions of its token predictors went past the hook, as in a compiled backbone, '
            'so that nothing holds the keep ratio; compile nothing inside of the model'
            if self._passed
            else "its forward with mode='loss' was not called, or went past the hook as in a "
            'compiled model, so that no loss was added and nothing holds the keep ratio; a '
            "train_step must call self(inputs, data_samples, mode='loss') and not self.loss"
        )
        print_log(
            f'{asker}: iteration {iteration} trained the sparse backbone of this {self._model}, '
            f'but {what}',
            'current',
            logging.WARNING,
        )

    def close(self) -> None:
        """Stops watching."""
        while self._handles:
            self._handles.pop().remove()

    def _note_gradient(self, parameter: Tensor) -> None:
        self._trained = True
