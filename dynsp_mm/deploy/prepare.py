"""Whole models in their fastest form for inference."""

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..backbones.base import Backbone
from ..errors import UserError
from ..ops import check_backend
from ..prepared import release_weights as release


def _own_backbones(model: nn.Module) -> list[Backbone]:
    return [module for module in model.modules() if isinstance(module, Backbone)]


def prepare_for_inference(
    model: nn.Module, backend: str = 'auto', release_weights: bool = False
) -> nn.Module:
    """Prepares the backbones of this package in a model, :meth:`Backbone.prepare_for_inference`.

    ::

        inferencer = DetInferencer('configs/maskrcnn_dyswin_t.py', 'epoch_12.pth')
        dynsp_mm.prepare_for_inference(inferencer.model)

    Args:
        model: Any module. All of it is put into eval mode.
        backend: Name of a backend: 'auto', 'eager', 'onednn' or 'triton'.
        release_weights: Whether to hold weights of linear layers once; the backbones then only
            infer.

    Returns:
        The model.

    Raises:
        UserError: The model has no such backbone, or the backend cannot run.
    """
    backbones = _own_backbones(model)
    if not backbones:
        raise UserError(
            f'{type(model).__name__} has no backbone of dynsp_mm to prepare for inference'
        )
    model.eval()
    for backbone in backbones:
        backbone.prepare_for_inference(backend)
    if release_weights:
        release(model)
    return model


@HOOKS.register_module()
class PrepareForInferenceHook(Hook):
    """Tests with prepared backbones; ``tools/test.py`` adds it.

    With 'auto' a model without a backbone of this package is tested as it is.

    Args:
        backend: Name of a backend, as for :func:`prepare_for_inference`.

    Raises:
        UserError: For an unknown backend.
    """

    # After hooks that exchange weights for a test, such as EMAHook: they prepare what is tested.
    priority = 'VERY_LOW'

    def __init__(self, backend: str = 'auto'):
        self.backend = check_backend(backend)

    def before_test(self, runner) -> None:
        """Registers what discards the forms."""
        if not any(isinstance(hook, _DiscardPreparedHook) for hook in runner.hooks):
            runner.register_hook(_DiscardPreparedHook())

    def before_test_epoch(self, runner) -> None:
        """Prepares the backbones."""
        if self.backend != 'auto' or _own_backbones(runner.model):
            prepare_for_inference(runner.model, self.backend)


class _DiscardPreparedHook(Hook):
    """Discards prepared forms after a test, before other hooks exchange weights again.

    mmpretrain's EMAHook then tests the others, and writes to them in a way that leaves no trace.
    """

    priority = 'HIGHEST'

    def after_test_epoch(self, runner, metrics=None) -> None:
        for backbone in _own_backbones(runner.model):
            backbone.discard_prepared()
