"""The reference: plain torch."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .base import Backend, Packed
from .registry import register_backend

CHUNK_CPU = 1024


@register_backend
class EagerBackend(Backend):
    """Plain torch, on any device and dtype.

    On a CPU a few rows that stay in a core's cache beat one pass over everything for each step.
    Elsewhere each piece would be a launch more, so all rows are taken at once.
    """

    name = 'eager'
    tolerances = {
        torch.float64: 1e-14,
        torch.float32: 3e-6,
        torch.float16: 3e-3,
        torch.bfloat16: 2e-2,
    }

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.chunk = CHUNK_CPU if device.type == 'cpu' else None

    def pack(self, weight: Tensor, bias: Tensor | None) -> Packed:
        return Packed(weight.detach().clone(), None if bias is None else bias.detach().clone())

    def gather_norm(self, tokens: Tensor, rows: Tensor | None, eps: float) -> Tensor:
        x = tokens if rows is None else tokens.index_select(0, rows)
        return F.layer_norm(x, x.shape[-1:], eps=eps)

    def linear(self, x: Tensor, layer: Packed) -> Tensor:
        return F.linear(x, *layer)

    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        return F.gelu(self.linear(x, layer))

    def linear_add_(self, target: Tensor, rows: Tensor | None, x: Tensor, layer: Packed) -> None:
        update = self.linear(x, layer)
        if rows is None:
            target.add_(update)
        else:
            target.index_add_(0, rows, update)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)

    def convolve(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        return conv(x)
