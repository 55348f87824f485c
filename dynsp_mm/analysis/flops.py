"""Multiply-adds of a forward, counted on the operators that really run."""

from typing import Any

import torch
import torch.nn as nn
from torch.utils.flop_counter import FlopCounterMode

from ..compat import math_attention
from ..prepared import unprepared


def count_macs(model: nn.Module, *inputs: Any) -> int:
    """Counts multiply-adds of matrix products, convolutions and attention.

    Counting what runs, not what the layers announce, makes the figure that of the positions
    which really take each path. Norms, activations and additions do not count.

    Args:
        model: Module that is run once in eval mode without gradients.
        *inputs: Arguments of its call.

    Returns:
        Number of multiply-adds, half of the FLOPs that torch's counter reports.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Fused attention kernels on the CPU count as nothing, nor do products of prepared forms.
        with (
            torch.no_grad(),
            math_attention(),
            unprepared(),
            FlopCounterMode(display=False) as counter,
        ):
            model(*inputs)
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops() // 2
