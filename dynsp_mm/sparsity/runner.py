"""How a stage with fast and slow paths runs, common to all hierarchical families."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
import torch.utils.checkpoint as cp
from mmengine.model import BaseModule
from torch import Tensor

from ..compat import is_compiling, is_watched
from ..ops import PREDICTOR, Kernels, Selection, merge_streams, named_range
from ..prepared.forms import Foldable, FoldedPath, FoldedWindowAttention
from .predictors import Decision, TokenPredictor


class Streams(NamedTuple):
    """Slow and fast map of the training forward (arXiv 2207.01580), each (B, N, C)."""

    slow: Tensor
    fast: Tensor

    def merge(self, decision: Decision) -> Tensor:
        """(B, N, C): each position from the stream that was decided for it."""
        return merge_streams(decision.mask, self.slow, self.fast)


class FoldedBlock(NamedTuple):
    """The parts of a block in their folded forms; what a block has not is None."""

    slow: FoldedPath
    fast: FoldedPath | None
    attention: FoldedWindowAttention | None = None


class DualPathBlock(Foldable, BaseModule):
    """What the blocks of all families share: which of its forms runs.

    Subclasses give the forms. But for the folded one they are functions of tensors alone, so that
    each can be checkpointed.

    Args:
        with_cp: Recompute activations in the backward pass to save memory.
    """

    def __init__(self, with_cp: bool = False):
        super().__init__()
        self.with_cp = with_cp

    def forward(
        self,
        x: Tensor | Streams,
        hw: tuple[int, int],
        decision: Decision | None = None,
        may_overwrite: bool = False,
    ) -> Tensor | Streams:
        """Runs the block on (B, N, C) tokens, or on both streams of the training forward.

        Args:
            x: Input.
            hw: Size (H, W) of the map.
            decision: None in dense blocks.
            may_overwrite: Nobody else needs ``x``: the folded form writes its output there.
        """
        if isinstance(x, Streams):
            return Streams(*self._run(self._forward_streams, *x, decision.mask, hw))
        folded = self.folded
        if folded is not None and (decision is None or decision.mask is None):
            rows = (None, None) if decision is None else (decision.slow, decision.fast)
            x = x.contiguous() if may_overwrite else x.clone(memory_format=torch.contiguous_format)
            self._run_folded_(folded, x, hw, *rows)
            return x
        if decision is None:
            return self._run(self._forward_dense, x, hw)
        if decision.mask is not None:
            return self._run(self._forward_merged, x, decision.mask, hw)
        return self._run(self._forward_sparse, x, decision.slow, decision.fast, hw)

    def _run(self, form: Callable, *args):
        if self.with_cp and args[0].requires_grad:
            return cp.checkpoint(form, *args, use_reentrant=False)
        return form(*args)

    def _fold(self, kernels: Kernels) -> FoldedBlock | None:
        raise NotImplementedError

    def _run_folded_(
        self,
        folded: FoldedBlock,
        x: Tensor,
        hw: tuple[int, int],
        slow: Tensor | None,
        fast: Tensor | None,
    ) -> None:
        """Overwrites ``x``. Dense where ``slow`` and ``fast`` are None, otherwise sparse."""
        raise NotImplementedError

    def _forward_dense(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        raise NotImplementedError

    def _forward_sparse(self, x: Tensor, slow: Tensor, fast: Tensor, hw: tuple[int, int]) -> Tensor:
        raise NotImplementedError

    def _forward_merged(self, x: Tensor, mask: Tensor, hw: tuple[int, int]) -> Tensor:
        raise NotImplementedError

    def _forward_streams(
        self, slow: Tensor, fast: Tensor, mask: Tensor, hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def run_stage(
    blocks: Iterable[DualPathBlock],
    tokens: Tensor,
    hw: tuple[int, int],
    predictors: Mapping[int, tuple[TokenPredictor, float]],
    selection: Selection | None,
    mixing: str = 'merged',
) -> Tensor:
    """Runs the blocks of a stage; decides before those that have a predictor.

    Until the first predictor blocks are dense. From then on each takes the latest decision. At
    inference there is one map. In training ``mixing`` says what carries gradients to the
    decisions: two streams, merged where a predictor looks and at the end (arXiv 2207.01580, as
    its code does), or one map to which each block adds ``mask * slow + (1 - mask) * fast``. With
    one map training computes what inference computes for the same decisions; with two, only
    while a position's decision stays.

    Args:
        blocks: Modules called as ``block(x, hw, decision)`` where x is a (B, N, C) tensor, or
            :class:`Streams` when the decision holds a mask and streams are not merged.
        tokens: (B, N, C) input, which is not changed.
        hw: Size (H, W) of the map.
        predictors: Block index -> (predictor, keep ratio); empty for a dense stage.
        selection: Rule of selection at inference.
        mixing: ``'two_stream'`` or ``'merged'``.

    Returns:
        (B, N, C).
    """
    x: Tensor | Streams = tokens
    decision: Decision | None = None
    owned = False  # whether x was made here and nobody else may hold it
    for index, block in enumerate(blocks):
        if index in predictors:
            predictor, ratio = predictors[index]
            merged = x.merge(decision) if isinstance(x, Streams) else x
            with named_range(PREDICTOR):
                decision = predictor(merged, hw, ratio, selection)
            owned = owned and not any(map(is_watched, predictor.modules()))
            if decision.mask is not None and mixing == 'two_stream' and not isinstance(x, Streams):
                x = Streams(x, x)
        # Of other modules, such as wrappers of blocks, nothing is known.
        known = (
            not is_compiling()
            and type(block).forward is DualPathBlock.forward
            and not is_watched(block)
        )
        out = block(x, hw, decision, owned) if known else block(x, hw, decision)
        owned = known and (owned or out is not x)
        x = out
    return x.merge(decision) if isinstance(x, Streams) else x
