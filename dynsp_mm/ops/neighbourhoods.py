"""Attention from the tokens of a window to the larger neighbourhood of that window.

Shape legend: B images, H x W key map, C channels, h heads; a grid of gh x gw windows, each with n
queries; a window covers own x own positions of the key map, its neighbourhood reach x reach, or
less where the map is small.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compat import is_tracing
from .cache import cached_by_shape

# Neighbourhoods overlap, so cutting them copies each key several times. Windows are cut together
# while the copies are at most this many times the larger of the two maps: K and V are 2C wide, so
# that is what the hidden layer of a 4C-wide MLP on that map and its activation take.
MAX_COPIES = 4


def pool_windows(x: Tensor, window: int, side: int) -> Tensor:
    """Max-pools each window to side x side tokens; bins overlap where side does not divide window.

    Args:
        x: (B, H, W, C); zeros are added right and bottom to fill the last windows, and enter the
            maximum.
        window: Window side.
        side: Side of the tokens' grid in a window.

    Returns:
        (B, gh * side, gw * side, C), gh = ceil(H / window), gw = ceil(W / window).
    """
    H, W = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -W % window, 0, -H % window))
    size = (x.shape[1] // window * side, x.shape[2] // window * side)
    return F.adaptive_max_pool2d(x.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


class Span(NamedTuple):
    """Where neighbourhoods lie along one side of the key map.

    Window i covers positions ``own * i`` to ``own * (i + 1)``; its neighbourhood is the ``reach``
    positions from ``own * i - before`` on.
    """

    own: int
    before: int
    reach: int

    def start(self, window: int) -> int:
        """First position of a window's neighbourhood; negative before the map."""
        return self.own * window - self.before


def neighbourhood_span(own: int, reach: int, count: int = 0, length: int | None = None) -> Span:
    """Centres neighbourhoods on their windows: floor / ceil of (reach - own) / 2 around.

    Args:
        own: Window side on the key map.
        reach: Neighbourhood side, at least ``own``.
        count: Number of windows; needed with ``length``.
        length: Side of the key map: what lies outside it in all neighbourhoods is left off. Only
            where keys outside the map are masked.
    """
    before = (reach - own) // 2
    if length is None:
        return Span(own, before, reach)
    # The last window reaches least far before the map, the first least far beyond it.
    lead = max(0, before - own * (count - 1))
    trail = max(0, reach - before - length)
    return Span(own, before - lead, reach - lead - trail)


@cached_by_shape(16)
def neighbourhood_mask(
    hw: tuple[int, int],
    grid: tuple[int, int],
    spans: tuple[Span, Span],
    corner: tuple[int, int] | None,
    device: torch.device,
) -> Tensor | None:
    """Which keys of each neighbourhood may be attended.

    Args:
        hw: Size of the key map.
        grid: Size of the grid of windows.
        spans: Spans of the neighbourhoods, for rows and columns.
        corner: None masks whatever lies outside the key map. (rows, columns) is the mask of the
            published STViT-R: outside the grid, and inside it where the last ``rows`` rows and
            the last ``columns`` columns meet; 0 means all rows, or all columns.
        device: Device of the mask.

    Returns:
        (gh * gw, 1, 1, keys) bool, True where attended; None if nothing is masked, but for
        tracers, which cannot look at values.
        Where every key of a neighbourhood would be masked, none is: masking all alike changes no
        softmax.
    """
    height, width = (span.own * count for span, count in zip(spans, grid))
    inside = torch.zeros(height, width, dtype=torch.bool, device=device)
    if corner is None:
        inside[: hw[0], : hw[1]] = True
    else:
        rows, columns = corner
        inside[:] = True
        inside[
            max(0, height - rows) if rows else 0 :, max(0, width - columns) if columns else 0 :
        ] = False
    keys = _cut(_surround(inside[None, ..., None], inside.new_zeros(1), grid, spans), spans)
    keys = keys.flatten(4).flatten(0, 3)
    keys = keys | ~keys.any(-1, keepdim=True)
    if not is_tracing() and bool(keys.all()):
        return None
    return keys[:, None, None]


def _surround(
    x: Tensor, outside: Tensor, grid: tuple[int, int], spans: tuple[Span, Span]
) -> Tensor:
    """Sets a (B, H, W, C) map into what its neighbourhoods cover, filled with ``outside`` (C, )."""
    size = [span.own * (count - 1) + span.reach for span, count in zip(spans, grid)]
    padded = outside.to(x.dtype).expand(x.shape[0], *size, x.shape[-1]).contiguous()
    top, left = (span.before for span in spans)
    # A trimmed neighbourhood may end before the map's padding to whole windows does.
    height, width = (
        min(length, full - before) for length, full, before in zip(x.shape[1:3], size, (top, left))
    )
    padded[:, top : top + height, left : left + width] = x[:, :height, :width]
    return padded


def _cut(padded: Tensor, spans: tuple[Span, Span]) -> Tensor:
    """(B, ..., ..., C) -> (B, gh, gw, C, rows, columns), a view."""
    rows, columns = spans
    return padded.unfold(1, rows.reach, rows.own).unfold(2, columns.reach, columns.own)


def cut_neighbourhoods(
    kv: Tensor,
    outside: Tensor,
    grid: tuple[int, int],
    spans: tuple[Span, Span],
    num_heads: int,
    max_keys: int,
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Cuts projected keys and values into neighbourhoods, some windows at a time.

    Args:
        kv: (B, H, W, 2C) keys and values of the map.
        outside: (2C, ) key and value of a position outside the map.
        grid: (gh, gw).
        spans: Spans of the neighbourhoods, for rows and columns.
        num_heads: Heads h.
        max_keys: Keys of an image to copy at a time, rounded to whole rows of windows, or to
            whole windows.

    Yields:
        Number of the first window in raster order, one past the last, keys and values of these
        windows, each (B * windows, h, keys, C / h).
    """
    head = kv.shape[-1] // 2 // num_heads
    windows = _cut(_surround(kv, outside, grid, spans), spans).unflatten(3, (2, num_heads, head))
    keys = spans[0].reach * spans[1].reach
    count = max(1, max_keys // keys)
    rows, columns = max(1, count // grid[1]), min(count, grid[1])
    for top in range(0, grid[0], rows):
        for left in range(0, grid[1], columns):
            some = windows[:, top : top + rows, left : left + columns]
            first = top * grid[1] + left
            # Not named, so that nothing holds them while the next ones are cut.
            yield (
                first,
                first + some.shape[1] * some.shape[2],
                *(
                    some[:, :, :, i].permute(0, 1, 2, 3, 5, 6, 4).reshape(-1, num_heads, keys, head)
                    for i in range(2)
                ),
            )


def neighbourhood_attention(
    q: Tensor,
    kv: Tensor,
    outside: Tensor,
    grid: tuple[int, int],
    spans: tuple[Span, Span],
    num_heads: int,
    scale: float,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    weights: bool = False,
) -> Tensor:
    """Attention of each window's queries to the keys of its neighbourhood.

    Keys and values are projected once per position and cut afterwards, a few windows at a time;
    the published STViT-R (arXiv 2303.08685) cuts first and projects every copy.

    Args:
        q: (B * gh * gw, n, C) queries, windows of an image in raster order.
        kv: (B, H, W, 2C) keys and values.
        outside: (2C, ) key and value of a position outside the map.
        grid: (gh, gw).
        spans: Spans of the neighbourhoods, for rows and columns.
        num_heads: Heads h.
        scale: Factor on the dot products.
        mask: Of :func:`neighbourhood_mask`.
        dropout: Probability of dropping an attention weight.
        weights: Return the attention weights, averaged over heads, instead.

    Returns:
        (B * gh * gw, n, C), or (B * gh * gw, n, keys) weights.
    """
    (B, H, W, _), (n, C) = kv.shape, q.shape[1:]
    max_keys = MAX_COPIES * max(H * W, grid[0] * grid[1] * n)
    q = q.view(B, -1, n, num_heads, C // num_heads).transpose(2, 3)
    out = []
    for first, last, k, v in cut_neighbourhoods(kv, outside, grid, spans, num_heads, max_keys):
        some = q[:, first:last].flatten(0, 1)
        allowed = None if mask is None else mask[first:last].repeat(B, 1, 1, 1)
        if weights:
            x = attention_weights(some, k, scale, allowed)
        else:
            x = F.scaled_dot_product_attention(
                some, k, v, attn_mask=allowed, dropout_p=dropout, scale=scale
            )
            x = x.transpose(1, 2).flatten(2)
        out.append(x.unflatten(0, (B, -1)))
        del k, v
    return torch.cat(out, 1).flatten(0, 1)


def inner_starts(length: int, count: int, own: int, reach: int) -> tuple[int, ...]:
    """First position of each of ``count`` neighbourhoods that are moved to lie inside a map.

    Each is centred on its window where the map is long enough. A map shorter than ``reach`` is
    one neighbourhood.
    """
    span = neighbourhood_span(own, reach)
    return tuple(min(max(span.start(i), 0), max(length - reach, 0)) for i in range(count))


def cut_inner_neighbourhoods(kv: Tensor, grid: tuple[int, int], own: int, reach: int) -> Tensor:
    """Cuts neighbourhoods that lie inside the map (:func:`inner_starts`).

    Args:
        kv: (B, H, W, 2C).
        grid: (gh, gw).
        own: Window side on the map.
        reach: Neighbourhood side, at least ``own``.

    Returns:
        (B * gh * gw, min(reach, H) * min(reach, W), 2C).
    """
    (B, H, W, C), (gh, gw) = kv.shape, grid
    index = []
    for length, count in ((H, gh), (W, gw)):
        starts = torch.tensor(inner_starts(length, count, own, reach), device=kv.device)
        offsets = torch.arange(min(reach, length), device=kv.device)
        index.append((starts[:, None] + offsets).flatten())
    kv = kv.index_select(1, index[0]).index_select(2, index[1])
    return kv.view(B, gh, -1, gw, min(reach, W), C).transpose(2, 3).reshape(B * gh * gw, -1, C)


def attention_weights(q: Tensor, k: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Softmax weights of scaled-dot-product attention, averaged over heads.

    Args:
        q: (..., h, n, d).
        k: (..., h, m, d).
        scale: Factor on the dot products.
        mask: Broadcasts to (..., h, n, m) bool, True where attended.

    Returns:
        (..., n, m) float32.
    """
    logits = (q @ k.transpose(-2, -1)).float() * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, float('-inf'))
    return logits.softmax(-1).mean(-3)


def spread_weights(
    weights: Tensor,
    grid: tuple[int, int],
    query_hw: tuple[int, int],
    query_window: int,
    starts: tuple[Sequence[int], Sequence[int]],
    reach: tuple[int, int],
    hw: tuple[int, int],
) -> Tensor:
    """Writes the weights of neighbourhoods to their places on the key map.

    Args:
        weights: (B * gh * gw, n, reach[0] * reach[1]), n = query_window ** 2.
        grid: (gh, gw).
        query_hw: Size of the query map without padding.
        query_window: Window side on the query map.
        starts: First row of the neighbourhoods of each row of windows, first column of each
            column; may lie outside the map.
        reach: Height and width of a neighbourhood.
        hw: Size (H, W) of the key map.

    Returns:
        (B, *query_hw, H, W); weights on positions outside the map are left out.
    """
    side = query_window
    weights = weights.view(-1, *grid, side, side, *reach)
    out = weights.new_zeros(weights.shape[0], grid[0] * side, grid[1] * side, *hw)
    for i, top in enumerate(starts[0]):
        for j, left in enumerate(starts[1]):
            rows, columns = (
                slice(max(start, 0), min(start + size, length))
                for start, size, length in zip((top, left), reach, hw)
            )
            out[:, i * side : (i + 1) * side, j * side : (j + 1) * side, rows, columns] = weights[
                :,
                i,
                j,
                :,
                :,
                rows.start - top : rows.stop - top,
                columns.start - left : columns.stop - left,
            ]
    return out[:, : query_hw[0], : query_hw[1]]
