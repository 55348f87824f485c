"""The cheap path of a dual-path block."""

import torch.nn as nn
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ..ops import Kernels
from ..prepared.forms import FoldedPath


class FastPath(nn.Module):
    """One normalised linear layer, ``W LN(x) + b`` (arXiv 2207.01580).

    Args:
        embed_dims: Channels C.
        eps: Of its own layer norm.
        drop_rate: Dropout after the layer.
    """

    def __init__(self, embed_dims: int, eps: float, drop_rate: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(embed_dims, eps=eps)
        self.linear = nn.Linear(embed_dims, embed_dims)
        self.drop = nn.Dropout(drop_rate)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal (std 0.02) weight, zero bias."""
        self.norm.reset_parameters()
        trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def fold(self, kernels: Kernels, scale: Tensor | None = None) -> FoldedPath | None:
        """The folded form of ``scale * (W LN(x) + b)``; None for another norm."""
        return FoldedPath.of(kernels, self.norm, self.linear, scale=scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.drop(self.linear(self.norm(tokens)))
