"""Activation checkpointing that a config asks mmengine for."""

import torch.nn as nn

from ..compat import checkpointed_forward
from ..layers import Block
from .predictors import TokenPredictor

KINDS = (Block, TokenPredictor)  # that take or give more than tensors


def adopt_checkpointing(backbone: nn.Module) -> list[str]:
    """Does with ``with_cp`` what mmengine's ``activation_checkpointing`` does by a wrapper.

    The wrapper runs a forward without gradients and again in the backward pass. It sees tensors
    among the arguments alone, and gives tuples back. Blocks hand each other a stream of several
    tensors, and decisions taken in the first run have no gradients for the loss of keep ratios.
    ``with_cp`` of blocks saves the same activations, and predictors stand outside.

    Modules without blocks, such as an MLP or patch merging, take and give tensors: they stay.

    Args:
        backbone: Module in which wrappers are looked for, itself among them.

    Returns:
        Names of the modules that were wrapped and are not any more; '' for the backbone.
    """
    found = []
    for name, module in backbone.named_modules():
        given = checkpointed_forward(module)
        if given is None or not any(isinstance(m, KINDS) for m in module.modules()):
            continue
        found.append(name)
        while given is not None:  # each start of a runner wraps anew
            del module.forward
            # A method of the class, maybe that of the module which this one is a copy of.
            if getattr(given, '__func__', None) is not type(module).forward:
                module.forward = given
            given = checkpointed_forward(module)
        for inner in module.modules():
            if hasattr(inner, 'with_cp'):
                inner.with_cp = True
    return found
