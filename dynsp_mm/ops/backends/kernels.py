"""What the folded inference form of a block is made of, for each backend.

A block in this form is a chain of these few steps on (M, C) tokens. Eager torch is the reference;
the others compute the same and differ in what a step fuses and how many rows it takes at a time.

Shape legend: M tokens, K of them chosen by ``rows``, (K,) int64 without repetition; None means
all, K = M. C channels, C' output channels.
"""

from typing import NamedTuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor


class Packed(NamedTuple):
    """A linear layer in the form that its backend multiplies fastest.

    Attributes:
        weight: (C', C), in a layout of the backend's.
        bias: (C',) or None.
    """

    weight: Tensor
    bias: Tensor | None


class EagerKernels:
    """Plain torch, on any device and dtype.

    Args:
        device: Where it runs.

    Attributes:
        chunk: Rows to take through a chain of steps before the next ones; None for all. On a
            CPU a few that stay in a core's cache beat one pass over everything for each step;
            elsewhere each would be a launch more.
    """

    def __init__(self, device: torch.device):
        self.chunk: int | None = 1024 if device.type == 'cpu' else None

    def pack(self, weight: Tensor, bias: Tensor | None) -> Packed:
        """Prepares a (C', C) weight and a (C',) bias. Copies: later changes are not seen."""
        return Packed(weight.detach().clone(), None if bias is None else bias.detach().clone())

    def gather_norm(self, tokens: Tensor, rows: Tensor | None, eps: float) -> Tensor:
        """Rows of (M, C) tokens, each minus its mean, over its deviation -> (K, C)."""
        x = tokens if rows is None else tokens.index_select(0, rows)
        return F.layer_norm(x, x.shape[-1:], eps=eps)

    def linear(self, x: Tensor, layer: Packed) -> Tensor:
        """(K, C) -> (K, C')."""
        return F.linear(x, *layer)

    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        """(K, C) -> (K, C') after the exact GELU."""
        return F.gelu(self.linear(x, layer))

    def linear_add_(self, target: Tensor, rows: Tensor | None, x: Tensor, layer: Packed) -> None:
        """Adds the layer's output, (K, C'), to rows of ``target`` (M, C')."""
        self._add_(target, rows, self.linear(x, layer))

    @staticmethod
    def _add_(target: Tensor, rows: Tensor | None, update: Tensor) -> None:
        if rows is None:
            target.add_(update)
        else:
            target.index_add_(0, rows, update)


class OneDNNKernels(EagerKernels):
    """oneDNN's matrix products on weights in its own layout, with GELU in the same pass (CPU)."""

    def pack(self, weight: Tensor, bias: Tensor | None) -> Packed:
        # The layout is that for any number of rows.
        weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        return Packed(weight, None if bias is None else bias.detach().clone())

    def linear(self, x: Tensor, layer: Packed) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, *layer, 'none', [], '')

    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, *layer, 'gelu', [], 'none')


class TritonKernels(EagerKernels):
    """The products of the device's library and Triton for what lies between them (CUDA)."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        from . import triton

        self._triton = triton

    def gather_norm(self, tokens: Tensor, rows: Tensor | None, eps: float) -> Tensor:
        return self._triton.gather_layer_norm(tokens, rows, None, None, eps)

    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        if layer.bias is None:
            return super().linear_gelu(x, layer)
        return self._triton.bias_gelu(F.linear(x, layer.weight), layer.bias)

    def linear_add_(self, target: Tensor, rows: Tensor | None, x: Tensor, layer: Packed) -> None:
        self._triton.scale_scatter_add_(target, rows, F.linear(x, layer.weight), None, layer.bias)


Kernels = Union[EagerKernels, OneDNNKernels, TritonKernels]
KERNELS = dict(eager=EagerKernels, onednn=OneDNNKernels, triton=TritonKernels)
