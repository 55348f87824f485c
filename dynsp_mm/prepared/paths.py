"""Prepared MLPs and linear layers with the norm before and the scale after them.

Shape legend: M tokens, K of them chosen by ``rows``, C channels.
"""

from collections.abc import Callable
from typing import NamedTuple, Optional

import torch.nn as nn
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor

from ..ops import Backend, Packed, fold_norm, fold_scale, pieces


def is_exact_gelu(act: nn.Module) -> bool:
    """Whether an activation is the GELU that backends have."""
    return isinstance(act, nn.GELU) and act.approximate == 'none'


def pack_after_norm(
    backend: Backend,
    norm: nn.Module | None,
    weight: Tensor,
    bias: Tensor | None,
    order: Callable[[Tensor], Tensor] = lambda x: x,
) -> Packed | None:
    """A linear layer with weight and bias of the layer norm before it.

    Args:
        backend: Implementation that computes it.
        norm: The norm.
        weight: (C', C) of the linear layer.
        bias: (C',) or None.
        order: Puts the last axis of a tensor, C, into the order of the input's channels.

    Returns:
        None for what is no layer norm with weight and bias over C.
    """
    if (
        not isinstance(norm, nn.LayerNorm)
        or type(norm).forward is not nn.LayerNorm.forward
        or norm.weight is None
        or norm.bias is None
        or len(norm.normalized_shape) != 1
    ):
        return None
    return backend.pack(*fold_norm(order(norm.weight), order(norm.bias), order(weight), bias))


class PreparedPath(NamedTuple):
    """One path of a block: layer norm, perhaps a hidden layer with GELU, a linear layer, a scale.

    Attributes:
        backend: Implementation that computes it.
        eps: Epsilon of the layer norm.
        hidden: The layer with GELU; None in the fast path.
        out: The last layer.
    """

    backend: Backend
    eps: float
    hidden: Packed | None
    out: Packed

    @classmethod
    def of(
        cls, backend: Backend, norm: nn.Module, *linears: nn.Linear, scale: Tensor | None = None
    ) -> Optional['PreparedPath']:
        """From a layer norm, one or two linear layers and a scale (C,) of the result.

        Returns:
            None where the norm is no layer norm.
        """
        *hidden, out = linears
        last = fold_scale(scale, out.weight, out.bias)
        first = (hidden[0].weight, hidden[0].bias) if hidden else last
        packed = pack_after_norm(backend, norm, *first)
        if packed is None:
            return None
        if hidden:
            return cls(backend, norm.eps, packed, backend.pack(*last))
        return cls(backend, norm.eps, None, packed)

    @classmethod
    def of_ffn(
        cls, backend: Backend, norm: nn.Module, ffn: FFN, scale: Tensor | None = None
    ) -> Optional['PreparedPath']:
        """From a layer norm, mmcv's ``FFN`` without identity, and a scale (C,) of the result.

        Returns:
            None where the FFN has another depth, activation or a scale of its own.
        """
        if (
            ffn.num_fcs != 2
            or not isinstance(getattr(ffn, 'gamma2', nn.Identity()), nn.Identity)
            or not is_exact_gelu(ffn.layers[0][1])
        ):
            return None
        return cls.of(backend, norm, ffn.layers[0][0], ffn.layers[1], scale=scale)

    def add_(self, target: Tensor, tokens: Tensor, rows: Tensor | None = None) -> None:
        """Adds to rows of ``target`` what the path makes of these rows of ``tokens``.

        Args:
            target: (M, C), may be ``tokens`` itself.
            tokens: (M, C).
            rows: (K,) int64, none twice; None for all.
        """
        for piece in pieces(len(tokens) if rows is None else len(rows), self.backend.chunk):
            if rows is None:
                self._add_piece_(target[piece], tokens[piece], None)
            else:
                self._add_piece_(target, tokens, rows[piece])

    def _add_piece_(self, target: Tensor, tokens: Tensor, rows: Tensor | None) -> None:
        x = self.backend.gather_norm(tokens, rows, self.eps)
        if self.hidden is not None:
            x = self.backend.linear_gelu(x, self.hidden)
        self.backend.linear_add_(target, rows, x, self.out)
