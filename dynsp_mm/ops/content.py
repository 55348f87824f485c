"""Which part of a batch's images is no padding."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..compat import has_values

# Pixels: detectors pad a single image to a multiple of this, which is what it keeps in a batch.
UNIT = 32


class Content(NamedTuple):
    """The positions of maps that show the images, not the padding right of them and below.

    Attributes:
        sizes: Rows and columns of each image.
        mask: (B, N) bool, True at these positions.
    """

    sizes: tuple[tuple[int, int], ...]
    mask: Tensor

    @property
    def counts(self) -> list[int]:
        """Number of positions of each image, 1 or more."""
        return [rows * cols for rows, cols in self.sizes]

    @property
    def weight(self) -> Tensor:
        """(B, N, 1) float32 with which positions enter a mean."""
        counts = torch.tensor(self.counts, device=self.mask.device).unsqueeze(1)
        return (self.mask / counts).unsqueeze(-1)

    def mean(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, 1, C), the mean over these positions in the dtype of ``x``."""
        return (x * self.weight).sum(1, keepdim=True).to(x.dtype)

    def clear(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C) with zeros where padding is."""
        return x.masked_fill(~self.mask.unsqueeze(-1), 0)

    def split(self, size: int) -> list['Content']:
        """Cut into batches of ``size`` images; the last may be smaller."""
        return [
            Content(self.sizes[i * size : (i + 1) * size], mask)
            for i, mask in enumerate(self.mask.split(size))
        ]


class ImageContent(NamedTuple):
    """The part of each image of a batch that is no padding, as a stage sees it.

    Attributes:
        sizes: Height and width of each image in pixels, multiples of 32 or those of the batch.
        padded: Height and width of the batch.
        stride: Rows and columns of pixels to a position.
    """

    sizes: tuple[tuple[int, int], ...]
    padded: tuple[int, int]
    stride: tuple[int, int]

    def on(self, hw: tuple[int, int], device: torch.device) -> Content:
        """The content on a map of size (H, W)."""
        sizes = tuple(
            tuple(
                side if length == whole else min(side, -(-length // step))
                for length, whole, step, side in zip(size, self.padded, self.stride, hw)
            )
            for size in self.sizes
        )
        rows, cols = torch.tensor(sizes, device=device).unsqueeze(-1).unbind(1)
        inside_rows, inside_cols = (
            torch.arange(side, device=device) < end for side, end in zip(hw, (rows, cols))
        )
        mask = inside_rows.unsqueeze(2) & inside_cols.unsqueeze(1)
        return Content(sizes, mask.flatten(1))


def find_content(
    images: Tensor, strides: Sequence[tuple[int, int]]
) -> tuple[ImageContent, ...] | None:
    """Finds the padding right of and below the images of a batch: rows and columns of zeros.

    Zero is what the data preprocessors of OpenMMLab pad normalised images with. Padding of another
    value counts as image, as does an image that is zero throughout, and what a single image is
    padded with to a multiple of 32. An image that is alone has no padding. A side that no image of
    the batch fills is that of all. This waits for values on the device: once for images without
    padding, else three times.

    Args:
        images: (B, C, H, W).
        strides: Rows and columns of pixels to a position, of each stage.

    Returns:
        The content as each stage sees it. None for no padding, and where values cannot be looked
        at: on the meta device, while operators are compiled, traced or captured.
    """
    if not has_values(images) or images.shape[0] == 1:
        return None
    H, W = images.shape[2:]
    ends = (images[..., _last_unit(H) :, :], images[..., _last_unit(W) :])
    if all(torch.stack([(end != 0).flatten(1).any(1) for end in ends]).flatten().tolist()):
        return None
    shown = (images != 0).any(1)
    sizes = tuple(zip(_extents(shown.any(2)), _extents(shown.any(1))))
    if all(size == (H, W) for size in sizes):
        return None
    return tuple(ImageContent(sizes, (H, W), tuple(stride)) for stride in strides)


def _whole_units(length: int) -> int:
    return -(-length // UNIT) * UNIT


def _last_unit(length: int) -> int:
    """Where the last unit of a side begins."""
    return _whole_units(length) - UNIT


def _extents(shown: Tensor) -> list[int]:
    """Where the images end along one side, in whole units.

    Args:
        shown: (B, L) bool, False in rows or columns of zeros.

    Returns:
        L for images without an end, and for all where none of them fills the side: batches are no
        larger than their largest image, and what they are padded to beyond it they are alone, too.
    """
    whole = shown.shape[1]
    ends = (shown * torch.arange(1, whole + 1, device=shown.device)).amax(1).tolist()
    ends = [min(whole, _whole_units(end)) for end in ends]
    return [end or whole for end in ends] if whole in ends else [whole] * len(ends)
