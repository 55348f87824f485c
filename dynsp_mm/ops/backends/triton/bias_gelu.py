"""Bias and GELU in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .launch import Blocks, block_offsets, check_matrix, check_vector, kernel, total

MAX_COLUMNS = 1024


@triton.jit
def _distribution(x):
    """The normal distribution function at x."""
    return 0.5 + 0.5 * tl.math.erf(x * 0.7071067811865476)


@kernel
def _forward(x, bias, out, K, C, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr):
    own, _, mask, column, present = block_offsets(
        None, tl.program_id(0) * BLOCK_K, K, C, BLOCK_K, BLOCK_C
    )
    b = tl.load(bias + column, mask=present, other=0.0).to(tl.float32)
    v = tl.load(x + own, mask=mask, other=0.0).to(tl.float32) + b[None, :]
    tl.store(out + own, v * _distribution(v), mask=mask)


@kernel
def _backward(grad, x, bias, grad_x, bias_sums, K, C, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr):
    program = tl.program_id(0)
    sums = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    for first in range(program * BLOCK_K, K, tl.num_programs(0) * BLOCK_K):
        own, _, mask, column, present = block_offsets(None, first, K, C, BLOCK_K, BLOCK_C)
        b = tl.load(bias + column, mask=present, other=0.0).to(tl.float32)
        v = tl.load(x + own, mask=mask, other=0.0).to(tl.float32) + b[None, :]
        density = 0.3989422804014327 * tl.exp(-0.5 * v * v)
        g = tl.load(grad + own, mask=mask, other=0.0).to(tl.float32)
        g = g * (_distribution(v) + v * density)
        tl.store(grad_x + own, g, mask=mask)
        sums += g
    if bias_sums is not None:
        column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
        tl.store(bias_sums + program * C + column, tl.sum(sums, axis=0), mask=column < C)


class _BiasGelu(Function):
    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor) -> Tensor:
        out = torch.empty_like(x)
        blocks = Blocks(*x.shape, MAX_COLUMNS)
        blocks.launch(_forward, blocks.grid, x, bias, out, *x.shape)
        ctx.save_for_backward(x, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, bias = ctx.saved_tensors
        blocks = Blocks(*x.shape, MAX_COLUMNS)
        grad_x = torch.empty_like(x)
        sums = blocks.partial_sums(x.device) if ctx.needs_input_grad[1] else None
        blocks.launch(
            _backward, blocks.sum_grid, grad.contiguous(), x, bias, grad_x, sums, *x.shape
        )
        return grad_x, total(sums)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU of ``x + bias``, with the error function (arXiv 1606.08415).

    Differentiable once, in both arguments. float32, float16 or bfloat16, each its own; computed in
    float32 and rounded once.

    Args:
        x: (K, C).
        bias: (C, ).

    Returns:
        (K, C) in the dtype of ``x``.

    Raises:
        ValueError: For another shape, device or dtype.
    """
    x = check_matrix('x', x)
    return _BiasGelu.apply(x, check_vector('bias', bias, x))
