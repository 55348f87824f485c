"""What every multi-head attention has, whatever attends to what."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from ..errors import UserError


class MultiheadAttention(BaseModule):
    """Heads, scale, dropout and output projection; subclasses add the input projections.

    Args:
        embed_dims: Channels C.
        num_heads: Heads h; divides C.
        qk_scale: Factor on dot products; None means (C / h) ** -0.5.
        attn_drop: Dropout on attention weights.
        proj_drop: Dropout on the output.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        if embed_dims % num_heads:
            raise UserError(f'num_heads={num_heads}: must divide the channels, {embed_dims}')
        self.num_heads = num_heads
        self.scale = qk_scale or (embed_dims // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    @property
    def dropout(self) -> float:
        """Dropout of attention weights in the current mode."""
        return self.attn_drop if self.training else 0.0

    def project(self, x: Tensor) -> Tensor:
        """The output projection, (..., C) -> (..., C)."""
        return self.proj_drop(self.proj(x))
