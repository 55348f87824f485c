"""Parameters that no dense checkpoint has: those of predictors and fast paths."""

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
