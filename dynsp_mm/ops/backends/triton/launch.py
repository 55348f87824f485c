"""What the kernels share: checks of their arguments, blocks, launching.

Shape legend: M tokens, C channels, K rows of the (M, C) matrix that a kernel works on. A program
holds a block of BLOCK_K x BLOCK_C elements.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ....errors import UserError
from .dtypes import DTYPES

# Elements that a program holds at a time, and that each of its warps does: 8 a thread, so that
# 16-bit values are read 16 bytes at a time.
BLOCK, WARP = 2048, 256
MAX_BLOCK_ROWS = 64


def check(
    name: str,
    x: Tensor,
    shape: Sequence[int | None],
    device: torch.device,
    dtypes: Sequence[torch.dtype] = DTYPES,
) -> Tensor:
    """Returns ``x``, contiguous.

    Args:
        name: Name of the argument.
        x: Value of the argument.
        shape: Sizes it must have, None for any.
        device: Device it must be on.
        dtypes: Dtypes it may have.

    Raises:
        ValueError: For another shape, device or dtype, and where a gradient would be lost.
    """
    if x.dim() != len(shape) or any(want not in (None, got) for want, got in zip(shape, x.shape)):
        wanted = ', '.join('any' if size is None else str(size) for size in shape)
        raise UserError(f'{name}: has shape {tuple(x.shape)}, must have ({wanted})')
    if x.dtype not in dtypes:
        raise UserError(f'{name}: is {x.dtype}, must be {" or ".join(map(str, dtypes))}')
    if x.device != device:
        raise UserError(f'{name}: is on {x.device}, must be on {device} as the others')
    if x.requires_grad and torch.is_grad_enabled():
        raise UserError(
            f'{name}: requires a gradient, which the kernels do not compute; use torch.no_grad()'
        )
    return x.contiguous()


def check_matrix(
    name: str, x: Tensor, rows: int | None = None, channels: int | None = None
) -> Tensor:
    """:func:`check` of a matrix that says where the other arguments must be."""
    x = check(name, x, (rows, channels), x.device)
    if not x.shape[1]:
        raise UserError(f'{name}: has shape {tuple(x.shape)}, must have 1 channel or more')
    return x


def check_rows(rows: Tensor | None, device: torch.device) -> Tensor | None:
    """:func:`check` of row numbers, which may be None."""
    return None if rows is None else check('rows', rows, (None,), device, (torch.int64,))


def check_vector(name: str, x: Tensor | None, matrix: Tensor) -> Tensor | None:
    """:func:`check` of a value for each channel, which may be None."""
    return None if x is None else check(name, x, matrix.shape[1:], matrix.device)


def kernel(function):
    """``triton.jit`` that does not compile anew for each kind of K, which differs by image."""
    return triton.jit(function, do_not_specialize=['K'])


class Blocks:
    """How K rows of C channels are cut into blocks.

    Args:
        rows: Number K of rows.
        channels: Number C of channels.
        max_columns: Columns of a block at most, a power of 2; None means that blocks hold whole
            rows.
    """

    def __init__(self, rows: int, channels: int, max_columns: int | None = None):
        columns = max(16, triton.next_power_of_2(channels))
        self.columns = columns if max_columns is None else min(columns, max_columns)
        self.rows = min(MAX_BLOCK_ROWS, max(1, BLOCK // self.columns))
        self.warps = min(16, max(1, self.rows * self.columns // WARP))
        #: Programs, each of which computes one block.
        self.grid: tuple[int, int] = (
            triton.cdiv(rows, self.rows),
            triton.cdiv(channels, self.columns),
        )

    def launch(self, compiled, *args) -> None:
        """Runs a kernel on these blocks; no program where there are no rows."""
        if not self.grid[0]:
            return
        # Triton launches on the current device, wherever the tensors are.
        with torch.cuda.device_of(args[0]):
            compiled[self.grid](
                *args, BLOCK_K=self.rows, BLOCK_C=self.columns, num_warps=self.warps
            )


@triton.jit
def block_offsets(rows, first, K, C, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr):
    """Where the block from row number ``first`` on lies.

    Returns:
        Offsets of its elements in the (K, C) matrix of rows alone and in the (M, C) matrix of all,
        which of them exist, columns, and which of these exist.
    """
    # int64: the matrices may hold more than 2^31 elements.
    row = first + tl.arange(0, BLOCK_K).to(tl.int64)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    exists = row < K
    mask = exists[:, None] & (column < C)[None, :]
    own = row[:, None] * C + column[None, :]
    if rows is None:
        return own, own, mask, column, column < C
    else:
        place = tl.load(rows + row, mask=exists, other=0)
        return own, place[:, None] * C + column[None, :], mask, column, column < C
