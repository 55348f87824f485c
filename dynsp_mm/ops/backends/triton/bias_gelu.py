"""Bias and GELU in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Blocks, block_offsets, check_matrix, check_vector, kernel

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


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU of ``x + bias``, with the error function (arXiv 1606.08415); for inference.

    float32, float16 or bfloat16, each argument its own; computed in float32 and rounded once.

    Args:
        x: Matrix (K, C).
        bias: Vector (C, ).

    Returns:
        (K, C) in the dtype of ``x``.

    Raises:
        ValueError: For another shape, device or dtype, and where a gradient would be lost.
    """
    x = check_matrix('x', x)
    bias = check_vector('bias', bias, x)
    out = torch.empty_like(x)
    blocks = Blocks(*x.shape, MAX_COLUMNS)
    blocks.launch(_forward, x, bias, out, *x.shape)
    return out
