"""Windows of a token map: padding, partition, shift mask, attention.

Shape legend: B images, H x W map, C channels, w window side, n = w*w tokens a window,
h heads, nW windows an image.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .cache import cached_by_shape

# What Swin adds to the logits of pairs that the cyclic shift brought together. Not -inf: the
# published networks were trained with this value.
MASKED = -100.0
# Rows and columns of each map of a batch that are no padding; None for all of them.
Sizes = None | tuple[tuple[int, int], ...]


def partition_windows(x: Tensor, window: int, shift: int) -> Tensor:
    """Pads right and bottom with zeros, shifts cyclically, and cuts into windows.

    Args:
        x: (B, H, W, C).
        window: Window side w.
        shift: Positions to shift up and left, 0 <= shift < w.

    Returns:
        (B * nW, n, C), windows of one image in raster order.
    """
    B, H, W, C = x.shape
    x = F.pad(x, (0, 0, 0, -W % window, 0, -H % window))
    if shift:
        x = torch.roll(x, (-shift, -shift), dims=(1, 2))
    Hp, Wp = x.shape[1:3]
    x = x.view(B, Hp // window, window, Wp // window, window, C)
    return x.transpose(2, 3).reshape(-1, window * window, C)


def reverse_windows(windows: Tensor, window: int, shift: int, hw: tuple[int, int]) -> Tensor:
    """Undoes :func:`partition_windows`.

    Args:
        windows: (B * nW, n, C).
        window: Window side w.
        shift: The shift that was applied.
        hw: Size (H, W) of the map without padding.

    Returns:
        (B, H, W, C).
    """
    H, W = hw
    rows, cols = -(-H // window), -(-W // window)
    x = windows.view(-1, rows, cols, window, window, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, rows * window, cols * window, windows.shape[-1])
    if shift:
        x = torch.roll(x, (shift, shift), dims=(1, 2))
    return x[:, :H, :W]


@cached_by_shape(8, varied='sizes')
def cyclic_shift_mask(
    hw: tuple[int, int], window: int, shift: int, device: torch.device, sizes: Sizes = None
) -> Tensor:
    """Additive mask that keeps windows from attending across the seam of a cyclic shift.

    Padding is not masked, as in Swin. The last few shapes are cached.

    Args:
        hw: Size (H, W) of the maps.
        window: Window side w.
        shift: As of :func:`partition_windows`.
        device: Device of the mask.
        sizes: Rows and columns of each map that are no padding; None for all of them. Positions
            outside the windows that these alone would fill are kept apart.

    Returns:
        (nW, 1, n, n) float32 of 0 and -100; with ``sizes`` (B * nW, 1, n, n).
    """
    return _mask_between(_shift_regions(hw, window, shift, device, sizes))


def _shift_regions(
    hw: tuple[int, int], window: int, shift: int, device: torch.device, sizes: Sizes
) -> Tensor:
    """(nW, n) int64: which of the regions that a shift brought together each position is of.

    With ``sizes`` (B * nW, n).
    """

    def region(length: int) -> Tensor:
        # Only the last window holds two regions: what was there and what was rolled in.
        # A lone window has no first region, but still these two.
        blocks = -(-length // window)
        index = torch.arange(blocks * window, device=device)
        last = (blocks - 1) * window
        return (index >= last).long() + (index >= last + window - shift).long()

    ids = (region(hw[0])[:, None] * 3 + region(hw[1])[None, :])[None]
    if sizes is not None:
        beyond = torch.zeros(len(sizes), *ids.shape[1:], dtype=torch.bool, device=device)
        for image, (rows, cols) in zip(beyond, sizes):
            image[-(-rows // window) * window :] = True
            image[:, -(-cols // window) * window :] = True
        ids = ids.masked_fill(beyond.roll((-shift, -shift), dims=(1, 2)), 9)
    return partition_windows(ids.unsqueeze(-1), window, 0).squeeze(-1)


def _mask_between(ids: Tensor) -> Tensor:
    """(nW, n) regions -> the (nW, 1, n, n) mask between different ones."""
    different = ids[:, None, :, None] != ids[:, None, None, :]
    return torch.zeros_like(different, dtype=torch.float32).masked_fill_(different, MASKED)


class WindowPlan(NamedTuple):
    """The tokens of a batch of maps in the order of their windows.

    Attributes:
        inner: (nI * n,) int64 rows among the M = B * H * W tokens of those nI windows that are
            full and attend freely.
        border: (K,) int64 rows of the tokens of the other windows.
        places: (K,) int64: where these lie among the nE * n places of the nE other windows; the
            rest of the places is padding. Windows of nothing else are left out.
        mask: (nE, 1, n, n) float32 of 0 and -100.
    """

    inner: Tensor
    border: Tensor
    places: Tensor
    mask: Tensor


@cached_by_shape(16, varied='sizes', latest=2)
def plan_windows(
    batch: int,
    hw: tuple[int, int],
    window: int,
    shift: int,
    device: torch.device,
    sizes: Sizes = None,
) -> WindowPlan:
    """Plans window attention without padded or shifted maps. The last few shapes are cached.

    Args:
        batch: Images B.
        hw: Size (H, W) of the maps.
        window: Window side w, n = w * w.
        shift: As of :func:`partition_windows`.
        device: Device of the plan.
        sizes: Rows and columns of each map that are no padding; None for all of them.
    """
    tokens = torch.arange(1, batch * hw[0] * hw[1] + 1, device=device).view(batch, *hw, 1)
    for image, (rows, cols) in zip(tokens, sizes or ()):
        image[rows:] = 0
        image[:, cols:] = 0
    rows = partition_windows(tokens, window, shift).squeeze(-1) - 1  # -1 is padding
    # Masks of the few special windows only: those of all are many times the map.
    ids = _shift_regions(hw, window, shift, device, sizes) if shift else torch.zeros_like(rows)
    ids = ids.repeat(len(rows) // len(ids), 1)
    padded = rows < 0
    special = (padded.any(1) | (ids != ids[:, :1]).any(1)) & ~padded.all(1)
    border = rows[special].flatten()
    places = (border >= 0).nonzero().squeeze(1)
    inner = ~(special | padded.all(1))
    return WindowPlan(rows[inner].flatten(), border[places], places, _mask_between(ids[special]))


def relative_position_index(window: int) -> Tensor:
    """Row of the position bias table for each pair of tokens of a window.

    Returns:
        (n, n) int64 with values in [0, (2w - 1)^2).
    """
    coords = torch.stack(
        torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij')
    ).flatten(1)
    offset = coords[:, :, None] - coords[:, None, :] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def log_offsets(window: int, unit_window: int = 0) -> Tensor:
    """Offsets between positions of a window on a logarithmic scale (arXiv 2111.09883, 3.3).

    Args:
        window: Window side w.
        unit_window: The window whose largest offset becomes 8 before the logarithm; 0 means w.

    Returns:
        ((2w - 1)^2, 2) float32: vertical and horizontal, in the order of
        :func:`relative_position_index`.
    """
    steps = torch.arange(1 - window, window) * (8 / max(1, (unit_window or window) - 1))
    steps = steps.sign() * (steps.abs() + 1).log2() / 3
    return torch.cartesian_prod(steps, steps)


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attention inside windows (Swin, arXiv 2103.14030, equation 4).

    Args:
        q: (B * nW, h, n, C / h) queries.
        k: (B * nW, h, n, C / h) keys.
        v: (B * nW, h, n, C / h) values.
        bias: (h, n, n) relative position bias, any float dtype.
        mask: (nW, 1, n, n) additive, or None.
        scale: Factor on the dot products.
        dropout: Probability of dropping an attention weight.

    Returns:
        (B * nW, n, C).
    """
    bias = bias.unsqueeze(0)
    if mask is not None:
        bias = bias + mask.to(bias.dtype)
        bias = bias.repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
    x = F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout, scale=scale
    )
    return x.transpose(1, 2).flatten(2)
