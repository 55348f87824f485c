"""What a block of any family gives to those who run it.

Shape legend: B images, N positions of a map of size (H, W), C channels, M = B * N.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch.nn as nn
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from torch import Tensor

from ..ops import Content
from ..prepared import Preparable, PreparedPath, PreparedWindowAttention


def make_ffn(embed_dims: int, ratio: float, cfgs: Mapping) -> FFN:
    """Mmcv's MLP with ``ratio * embed_dims`` hidden channels, without its residual and drop path.

    Whoever runs a block adds these himself, once for all of its branches.
    """
    hidden = dict(feedforward_channels=int(embed_dims * ratio))
    return FFN(
        embed_dims,
        add_identity=False,
        **{**hidden, 'ffn_drop': 0.0, 'act_cfg': dict(type='GELU'), **cfgs},
    )


class PreparedBlock(NamedTuple):
    """The branches of a block in their prepared forms; what a block has not is None."""

    mlp: PreparedPath
    cheap: PreparedPath | None
    attention: PreparedWindowAttention | None = None


class Block(Preparable, BaseModule):
    """A residual block: positions are mixed, then each goes through an MLP by itself.

    A family gives :meth:`mix`, :meth:`mlp`, a ``fast_path`` where :meth:`cheap` is wanted, and
    where needed :meth:`finish`; for a prepared form also :meth:`_prepare` and
    :meth:`mix_prepared`. Which positions take which branch, and in which form, is not its concern:
    a unit of :mod:`dynsp_mm.sparsity.units` knows.

    Args:
        drop_path: Stochastic depth of both branches.
        with_cp: Whether to recompute activations in the backward pass to save memory.

    Attributes:
        locality: What :meth:`mix` needs at a time: any 'position' with any others, whole
            windows ('window'), or the whole 'map'.
        fast_path: The module of :meth:`cheap`; None in a block without.
    """

    locality: str = 'map'

    def __init__(self, drop_path: nn.Module | None = None, with_cp: bool = False):
        super().__init__()
        self.drop_path = drop_path or nn.Identity()
        self.with_cp = with_cp
        self.fast_path: nn.Module | None = None

    def mix(
        self, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Mixes positions.

        Args:
            x: (B, N, C).
            grid: Size (H, W) of the map.
            content: Positions that are no padding: these must see the map as if it ended with
                them. None for all.

        Returns:
            (B, N, C) input of the branches, and what their updates are added to; None for ``x``.
        """
        raise NotImplementedError

    def mlp(self, tokens: Tensor, rows: Any = None) -> Tensor:
        """Computes the update of the full branch.

        Args:
            tokens: (B, N, C), or (K, C) of chosen positions.
            rows: The :class:`~dynsp_mm.sparsity.decision.Rows` that they are; None for whole maps
                in which every token counts.
        """
        raise NotImplementedError

    def cheap(self, tokens: Tensor) -> Tensor:
        """Computes the update of the cheap branch, (..., C) -> (..., C)."""
        return self.fast_path(tokens)

    def finish(self, x: Tensor) -> Tensor:
        """Computes what comes after the residual sum, (B, N, C) -> (B, N, C)."""
        return x

    def mix_prepared(
        self, form: PreparedBlock, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> Tensor:
        """Mixes positions in the prepared form.

        Args:
            form: The prepared form.
            x: (B, N, C), contiguous; overwritten with what the updates are added to.
            grid: Size (H, W) of the map.
            content: As of :meth:`mix`.

        Returns:
            (M, C) input of the branches.
        """
        raise NotImplementedError

    def forward(self, stream: Any, unit: Any, decision: Any = None) -> Any:
        """Runs the block as a unit of sparsity has it.

        Args:
            stream: The :class:`~dynsp_mm.sparsity.decision.TokenStream`.
            unit: The :class:`~dynsp_mm.sparsity.units.Unit`.
            decision: What it obeys; None where nothing was decided.

        Returns:
            The stream after the block.
        """
        return unit.run(self, stream, decision)

    def run(self, form: Callable, *args: Any) -> Any:
        """Calls ``form(block, *args)``, a function of tensors, so that it can be checkpointed."""
        if self.with_cp and args[0].requires_grad:
            return cp.checkpoint(form, self, *args, use_reentrant=False)
        return form(self, *args)
