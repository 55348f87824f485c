"""Whether a module is as it was drawn."""

from collections.abc import Mapping

import torch
import torch.nn as nn


def vectors_equal(module: nn.Module, others: Mapping[str, tuple[float, ...]] = {}) -> bool:
    """Whether all vectors of a module have the values that they start with.

    Biases start at 0 and weights of norms at 1. Matrices are not looked at: they are drawn.

    Args:
        module: The module.
        others: Start of a bias's name -> the values that it starts with instead.

    Returns:
        False also where there is nothing to look at, such as meta or empty tensors. Waits for the
        device once.
    """
    found, starts = [], []
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            continue
        start = next((values for key, values in others.items() if name.startswith(key)), None)
        if start is None:
            start = (float(name.endswith('weight')),) * parameter.numel()
        if parameter.is_meta or not len(start) == parameter.numel() > 0:
            return False
        found.append(parameter.detach().float())
        starts += start
    if not found:
        return False
    found = torch.cat(found)
    return torch.equal(found, torch.tensor(starts, device=found.device))
