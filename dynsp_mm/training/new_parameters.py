"""Parameters that no dense checkpoint has: those of predictors and fast paths."""

from collections.abc import Mapping
from typing import Any

import torch.nn as nn
from mmengine.model import is_model_wrapper

from .. import families
from ..backbones.base import Backbone
from ..errors import UserError


def is_new(name: str) -> bool:
    """Whether a parameter belongs to a token predictor or a fast path, by its name.

    Those lie under ``token_predictors`` and ``fast_path`` and in ``fast_gamma``.
    """
    return families.is_spatial(name)


def new_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of the token predictors and fast paths of a model.

    Those that are not trained, such as a frozen teacher's, do not count.
    """
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and is_new(name)
    }


def check_has_new(model: nn.Module, asker: str) -> None:
    """Checks that a model has token predictors or fast paths, trained or frozen.

    Raises:
        UserError: It has none.
    """
    if not any(is_new(name) for name, _ in model.named_parameters()):
        raise UserError(
            f'{asker}: {type(model).__name__} has no token predictors or fast paths to train; '
            f'remove the {asker}, or {families.how_to_make_sparse()}'
        )


def find_unloaded(model: nn.Module, checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of trained parameters outside our backbones that a checkpoint does not fill.

    The backbones convert and check what they load, and start what is new.

    Args:
        model: Any model, also in a wrapper.
        checkpoint: What is loaded into it, with names of the whole model, or a dict with that as
            its ``state_dict``.
    """
    model = model.module if is_model_wrapper(model) else model
    state_dict = checkpoint.get('state_dict', checkpoint)
    shapes = {
        name.removeprefix('module.'): getattr(value, 'shape', None)
        for name, value in state_dict.items()
    }
    inside = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Backbone)
        for parameter in module.parameters()
    }
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and id(parameter) not in inside
        and shapes.get(name) != parameter.shape
    ]


def find_sparse_backbones(model: nn.Module, asker: str) -> dict[str, Backbone]:
    """Name -> backbone of a model's backbones with token predictors, in order.

    Frozen copies, such as a teacher, do not count beside others: those with trained predictors
    come first, then those of which anything is trained; all count where all are frozen.

    Args:
        model: Any model, also in a wrapper.
        asker: Name of the hook for the message.

    Raises:
        UserError: If there is none.
    """
    found = {
        name: module for name, module in model.named_modules() if families.takes_decisions(module)
    }
    if not found:
        model = model.module if is_model_wrapper(model) else model
        raise UserError(
            f'{asker}: {type(model).__name__} has no token predictors; remove the '
            f'hook, or {families.how_to_make_sparse()}'
        )
    for part in (lambda backbone: backbone.token_predictors, lambda backbone: backbone):
        trained = {
            name: backbone
            for name, backbone in found.items()
            if any(parameter.requires_grad for parameter in part(backbone).parameters())
        }
        if trained:
            return trained
    return found
