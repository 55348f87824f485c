"""The end of a path: bias, layer scale and residual in one pass over the rows of the path."""

import triton.language as tl
from torch import Tensor

from .launch import Blocks, block_offsets, check, check_matrix, check_rows, check_vector, kernel

MAX_COLUMNS = 1024


@kernel
def _forward(
    residual, rows, update, scale, bias, K, C, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr
):
    own, place, mask, column, present = block_offsets(
        rows, tl.program_id(0) * BLOCK_K, K, C, BLOCK_K, BLOCK_C
    )
    u = tl.load(update + own, mask=mask, other=0.0).to(tl.float32)
    if bias is not None:
        u += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)[None, :]
    if scale is not None:
        u *= tl.load(scale + column, mask=present, other=0.0).to(tl.float32)[None, :]
    u += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(residual + place, u, mask=mask)


def scale_scatter_add_(
    residual: Tensor,
    rows: Tensor | None,
    update: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Adds ``scale * (update + bias)`` to the named rows of ``residual``; for inference.

    float32, float16 or bfloat16, each argument its own; computed in float32 and rounded once.

    Args:
        residual: Matrix (M, C) that is written to.
        rows: Row numbers (K, ) int64 in any order, each at most once and within ``0 .. M - 1``,
            which is not checked; None means all rows.
        update: Matrix (K, C).
        scale: Vector (C, ), or None for 1.
        bias: Vector (C, ), or None for 0.

    Returns:
        ``residual``.

    Raises:
        ValueError: For another shape, device or dtype, and where a gradient would be lost.
    """
    contiguous = check_matrix('residual', residual)
    rows = check_rows(rows, residual.device)
    count = len(residual if rows is None else rows)
    update = check('update', update, (count, residual.shape[1]), residual.device)
    scale, bias = check_vector('scale', scale, residual), check_vector('bias', bias, residual)
    blocks = Blocks(*update.shape, MAX_COLUMNS)
    blocks.launch(_forward, contiguous, rows, update, scale, bias, *update.shape)
    return residual if contiguous is residual else residual.copy_(contiguous)
