"""Layer norm of some rows of a matrix, without a copy of these rows."""

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .launch import Blocks, block_offsets, check_matrix, check_rows, check_vector, kernel, total

# A program holds whole rows in registers.
MAX_CHANNELS = 8192


@kernel
def _forward(
    tokens,
    rows,
    weight,
    bias,
    out,
    mean,
    inverse_std,
    K,
    C,
    eps,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
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
    row = first + tl.arange(0, BLOCK_K)
    tl.store(mean + row, m, mask=row < K)
    tl.store(inverse_std + row, r, mask=row < K)


@kernel
def _backward(
    grad,
    tokens,
    rows,
    weight,
    mean,
    inverse_std,
    grad_tokens,
    weight_sums,
    bias_sums,
    K,
    C,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    program = tl.program_id(0)
    of_weight = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    of_bias = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    for first in range(program * BLOCK_K, K, tl.num_programs(0) * BLOCK_K):
        own, place, mask, column, present = block_offsets(rows, first, K, C, BLOCK_K, BLOCK_C)
        row = first + tl.arange(0, BLOCK_K)
        m = tl.load(mean + row, mask=row < K, other=0.0)
        r = tl.load(inverse_std + row, mask=row < K, other=0.0)
        x = tl.load(tokens + place, mask=mask, other=0.0).to(tl.float32)
        x = tl.where(mask, (x - m[:, None]) * r[:, None], 0.0)
        g = tl.load(grad + own, mask=mask, other=0.0).to(tl.float32)
        of_weight += g * x
        of_bias += g
        if grad_tokens is not None:
            if weight is not None:
                g *= tl.load(weight + column, mask=present, other=0.0).to(tl.float32)[None, :]
            # What the mean and the variance of the row take back.
            g -= (tl.sum(g, axis=1) / C)[:, None] + x * (tl.sum(g * x, axis=1) / C)[:, None]
            tl.store(grad_tokens + place, g * r[:, None], mask=mask)
    column = tl.arange(0, BLOCK_C)
    if weight_sums is not None:
        tl.store(weight_sums + program * C + column, tl.sum(of_weight, axis=0), mask=column < C)
    if bias_sums is not None:
        tl.store(bias_sums + program * C + column, tl.sum(of_bias, axis=0), mask=column < C)


class _GatherLayerNorm(Function):
    @staticmethod
    def forward(
        ctx,
        tokens: Tensor,
        rows: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        K, C = len(tokens if rows is None else rows), tokens.shape[1]
        out = tokens.new_empty(K, C)
        mean, inverse_std = (
            torch.empty(K, dtype=torch.float32, device=tokens.device) for _ in range(2)
        )
        blocks = Blocks(K, C)
        blocks.launch(
            _forward, blocks.grid, tokens, rows, weight, bias, out, mean, inverse_std, K, C, eps
        )
        ctx.save_for_backward(tokens, rows, weight, mean, inverse_std)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, rows, weight, mean, inverse_std = ctx.saved_tensors
        (K, C), needs = grad.shape, ctx.needs_input_grad
        blocks = Blocks(K, C)
        empty = torch.empty_like if rows is None else torch.zeros_like
        grad_tokens = empty(tokens) if needs[0] else None
        sums = [blocks.partial_sums(grad.device) if need else None for need in needs[2:4]]
        blocks.launch(
            _backward,
            blocks.sum_grid,
            grad.contiguous(),
            tokens,
            rows,
            weight,
            mean,
            inverse_std,
            grad_tokens,
            *sums,
            K,
            C,
        )
        return grad_tokens, None, *map(total, sums), None


def gather_layer_norm(
    tokens: Tensor,
    rows: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm of ``tokens[rows]`` (arXiv 1607.06450).

    Differentiable once, in tokens, weight and bias; the gradient of tokens is zero in rows that are
    not named. float32, float16 or bfloat16, each argument its own; computed in float32 and rounded
    once.

    Args:
        tokens: (M, C), C up to 8192.
        rows: (K, ) int64 row numbers in any order, each at most once and within ``0 .. M - 1``,
            which is not checked; None means all rows.
        weight: (C, ), or None.
        bias: (C, ), or None.
        eps: Added to the variance.

    Returns:
        (K, C) in the dtype of ``tokens``.

    Raises:
        ValueError: For another shape, device or dtype.
    """
    tokens = check_matrix('tokens', tokens)
    if tokens.shape[1] > MAX_CHANNELS:
        raise ValueError(
            f'tokens: has shape {tuple(tokens.shape)}, must have {MAX_CHANNELS} channels or less'
        )
    return _GatherLayerNorm.apply(
        tokens,
        check_rows(rows, tokens.device),
        check_vector('weight', weight, tokens),
        check_vector('bias', bias, tokens),
        float(eps),
    )
