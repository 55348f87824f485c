"""Two paths over one map: gathered at inference, as two full streams in training.

Shape legend: B images, N positions, C channels, M = B*N tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def dual_path(
    tokens: Tensor,
    residual: Tensor,
    slow: Tensor,
    fast: Tensor,
    slow_path: Callable[[Tensor], Tensor],
    fast_path: Callable[[Tensor], Tensor],
) -> Tensor:
    """Runs each path on its own positions only and adds the results to ``residual``.

    Args:
        tokens: (M, C) input of both paths.
        residual: (M, C) what the updates are added to; not modified.
        slow: (K,) int64 rows that take the slow path.
        fast: (M - K,) int64, the remaining rows.
        slow_path: Maps (K, C) to (K, C).
        fast_path: Maps (M - K, C) to (M - K, C).

    Returns:
        (M, C) in the dtype of ``residual``.
    """
    slow_update = slow_path(tokens.index_select(0, slow))
    fast_update = fast_path(tokens.index_select(0, fast))
    # Every row is written once, so that assignment does: not every runtime has scatter-add.
    update = residual.new_empty(residual.shape)
    update.index_copy_(0, slow, slow_update.to(residual.dtype))
    update.index_copy_(0, fast, fast_update.to(residual.dtype))
    return residual + update


def merge_streams(mask: Tensor, slow: Tensor, fast: Tensor) -> Tensor:
    """The map that the last decision describes: ``mask * slow + (1 - mask) * fast``.

    Args:
        mask: (B, N, 1), 1 where the position is slow.
        slow: (B, N, C) slow stream.
        fast: (B, N, C) fast stream.
    """
    # One pass where ``mask * slow + (1 - mask) * fast`` takes four, and the same gradients. Under
    # autocast a convolution's output has another dtype than the stream beside it.
    dtype = torch.promote_types(slow.dtype, fast.dtype)
    return torch.lerp(fast.to(dtype), slow.to(dtype), mask.to(dtype))


def route_streams(
    mask: Tensor, merged: Tensor, slow: Tensor, fast: Tensor
) -> tuple[Tensor, Tensor]:
    """Inputs of the two paths in training (arXiv 2207.01580, as its code computes them).

    Each stream takes ``merged`` where it is the chosen one and keeps its own value elsewhere,
    so that the future a position did not take stays differentiable.

    Args:
        mask: (B, N, 1).
        merged: (B, N, C) output of the dense operator on the merged map.
        slow: (B, N, C).
        fast: (B, N, C).

    Returns:
        Slow and fast path inputs, each (B, N, C).
    """
    return merge_streams(mask, merged, slow), merge_streams(mask, fast, merged)
