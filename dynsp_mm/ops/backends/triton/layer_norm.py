"""Layer norm of some rows of a matrix, without a copy of these rows."""

import triton.language as tl
from torch import Tensor

from ....errors import UserError
from .launch import Blocks, block_offsets, check_matrix, check_rows, check_vector, kernel

# A program holds whole rows in registers.
MAX_CHANNELS = 8192


@kernel
def _forward(
    tokens, rows, weight, bias, out, K, C, eps, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr
):
    first = tl.program_id(0) * BLOCK_K
    own, place, mask, column, present = block_offsets(rows, first, K, C, BLOCK_K, BLOCK_C)
    x = tl.load(tokens + place, mask=mask, other=0.0).to(tl.float32)
    m = tl.sum(x, axis=1) / C
    x = tl.where(mask, x - m[:, None], 0.0)
    r = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / C + eps)
    y = x * r[:, None]
    if weight is not None:
        y *= tl.load(weight + column, mask=present, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        y += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)[None, :]
    tl.store(out + own, y, mask=mask)


def gather_layer_norm(
    tokens: Tensor,
    rows: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm of ``tokens[rows]`` (arXiv 1607.06450); for inference.

    float32, float16 or bfloat16, each argument its own; computed in float32 and rounded once.

    Args:
        tokens: Matrix (M, C), C up to 8192.
        rows: Row numbers (K, ) int64 in any order, each at most once and within ``0 .. M - 1``,
            which is not checked; None means all rows.
        weight: Vector (C, ), or None.
        bias: Vector (C, ), or None.
        eps: Number added to the variance.

    Returns:
        (K, C) in the dtype of ``tokens``.

    Raises:
        ValueError: For another shape, device or dtype, and where a gradient would be lost.
    """
    tokens = check_matrix('tokens', tokens)
    if tokens.shape[1] > MAX_CHANNELS:
        raise UserError(
            f'tokens: has shape {tuple(tokens.shape)}, must have {MAX_CHANNELS} channels or less'
        )
    rows = check_rows(rows, tokens.device)
    weight, bias = check_vector('weight', weight, tokens), check_vector('bias', bias, tokens)
    K, C = len(tokens if rows is None else rows), tokens.shape[1]
    out = tokens.new_empty(K, C)
    Blocks(K, C).launch(_forward, tokens, rows, weight, bias, out, K, C, float(eps))
    return out
