"""The end of a path: bias, layer scale and residual in one pass over the rows of the path."""

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .launch import (
    Blocks,
    block_offsets,
    check,
    check_matrix,
    check_rows,
    check_vector,
    kernel,
    total,
)

MAX_COLUMNS = 1024


@kernel
def _forward(
    residual, rows, update, scale, bias, out, K, C, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr
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
    tl.store(out + place, u, mask=mask)


@kernel
def _backward(
    grad,
    rows,
    update,
    scale,
    bias,
    grad_update,
    scale_sums,
    bias_sums,
    K,
    C,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    program = tl.program_id(0)
    of_scale = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    of_bias = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    for first in range(program * BLOCK_K, K, tl.num_programs(0) * BLOCK_K):
        own, place, mask, column, present = block_offsets(rows, first, K, C, BLOCK_K, BLOCK_C)
        g = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
        if scale_sums is not None:
            u = tl.load(update + own, mask=mask, other=0.0).to(tl.float32)
            if bias is not None:
                u += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)[None, :]
            of_scale += g * u
        if scale is not None:
            g *= tl.load(scale + column, mask=present, other=0.0).to(tl.float32)[None, :]
        of_bias += g
        if grad_update is not None:
            tl.store(grad_update + own, g, mask=mask)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    if scale_sums is not None:
        tl.store(scale_sums + program * C + column, tl.sum(of_scale, axis=0), mask=column < C)
    if bias_sums is not None:
        tl.store(bias_sums + program * C + column, tl.sum(of_bias, axis=0), mask=column < C)


def _add(
    residual: Tensor,
    rows: Tensor | None,
    update: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    blocks = Blocks(*update.shape, MAX_COLUMNS)
    blocks.launch(_forward, blocks.grid, residual, rows, update, scale, bias, out, *update.shape)


class _ScaleScatterAdd(Function):
    @staticmethod
    def forward(
        ctx,
        residual: Tensor,
        rows: Tensor | None,
        update: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        out = torch.empty_like(residual) if rows is None else residual.clone()
        _add(residual, rows, update, scale, bias, out)
        # Only the gradient of the scale needs the update.
        needs_update = ctx.needs_input_grad[3]
        ctx.save_for_backward(
            rows, update if needs_update else None, scale, bias if needs_update else None
        )
        ctx.shape, ctx.dtype = update.shape, update.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, update, scale, bias = ctx.saved_tensors
        needs = ctx.needs_input_grad
        blocks = Blocks(*ctx.shape, MAX_COLUMNS)
        grad_update = None
        if needs[2]:
            grad_update = torch.empty(ctx.shape, dtype=ctx.dtype, device=grad.device)
        sums = [blocks.partial_sums(grad.device) if need else None for need in needs[3:5]]
        if any(needs[2:5]):
            blocks.launch(
                _backward,
                blocks.sum_grid,
                grad.contiguous(),
                rows,
                update,
                scale,
                bias,
                grad_update,
                *sums,
                *ctx.shape,
            )
        return grad if needs[0] else None, None, grad_update, *map(total, sums)


def _check(
    residual: Tensor, rows: Tensor | None, update: Tensor, scale: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    residual = check_matrix('residual', residual)
    rows = check_rows(rows, residual.device)
    count = len(residual if rows is None else rows)
    return (
        residual,
        rows,
        check('update', update, (count, residual.shape[1]), residual.device),
        check_vector('scale', scale, residual),
        check_vector('bias', bias, residual),
    )


def scale_scatter_add(
    residual: Tensor,
    rows: Tensor | None,
    update: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """``residual`` with ``scale * (update + bias)`` added to the named rows.

    Differentiable once, in all but ``rows``. float32, float16 or bfloat16, each argument its own;
    computed in float32 and rounded once.

    Args:
        residual: (M, C); not modified.
        rows: (K, ) int64 row numbers in any order, each at most once and within ``0 .. M - 1``,
            which is not checked; None means all rows.
        update: (K, C).
        scale: (C, ), or None for 1.
        bias: (C, ), or None for 0.

    Returns:
        (M, C) in the dtype of ``residual``.

    Raises:
        ValueError: For another shape, device or dtype.
    """
    return _ScaleScatterAdd.apply(*_check(residual, rows, update, scale, bias))


def scale_scatter_add_(
    residual: Tensor,
    rows: Tensor | None,
    update: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """:func:`scale_scatter_add` that writes into ``residual``, for inference.

    Returns:
        ``residual``.

    Raises:
        ValueError: As there, and where a gradient would be lost.
    """
    given = (('residual', residual), ('update', update), ('scale', scale), ('bias', bias))
    for name, x in given:
        if torch.is_grad_enabled() and x is not None and x.requires_grad:
            raise ValueError(
                f'{name}: requires a gradient, which scale_scatter_add_ does not '
                'compute; use scale_scatter_add or torch.no_grad()'
            )
    contiguous, *others = _check(residual, rows, update, scale, bias)
    _add(contiguous, *others, contiguous)
    return residual if contiguous is residual else residual.copy_(contiguous)
