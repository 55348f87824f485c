"""The cheap branch of a block with two paths."""

import torch.nn as nn
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ..ops import Backend
from ..prepared import PreparedPath
from .start import vectors_equal


class FastPath(nn.Module):
    """One normalised linear layer, ``W LN(x) + b`` (arXiv 2207.01580).

    Args:
        embed_dims: Channels C.
        eps: Epsilon of its own layer norm.
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

    def is_at_start(self) -> bool:
        """Whether it is as it was drawn, by its values: training moves its biases.

        Weights that are not there, or not yet, are at no start. Waits for their device.
        """
        return vectors_equal(self)

    def make_prepared(self, backend: Backend, scale: Tensor | None = None) -> PreparedPath | None:
        """The prepared form of ``scale * (W LN(x) + b)``; None for another norm."""
        return PreparedPath.of(backend, self.norm, self.linear, scale=scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.drop(self.linear(self.norm(tokens)))
