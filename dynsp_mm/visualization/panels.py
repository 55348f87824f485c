"""Panels side by side, with captions, on the image that the network saw."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

CAPTION_HEIGHT = 18
MIN_PANEL_SIDE = 240  # px; smaller images are enlarged by a whole factor
MAX_PANEL_SIDE = 2560  # px; none is enlarged beyond


def input_as_image(x: Tensor, preprocessor: nn.Module | None) -> np.ndarray:
    """Undoes a data preprocessor's normalisation, as far as it has one.

    Args:
        x: Normalised input of the network, (C, H, W), any dtype.
        preprocessor: Model's ``data_preprocessor`` (its ``mean`` and ``std`` of C values or of one
            for all channels, and whether it swapped the channels), or a wrapper around one; None
            for none.

    Returns:
        (H, W, 3) uint8, RGB. Of more than three channels, the first three; one or two channels,
        averaged, are grey. Values that are not of bytes, such as those of uint16 or of floats in
        [0, 1], are stretched from the least to the largest.
    """
    x = torch.nan_to_num(x.detach().float().cpu())
    while hasattr(preprocessor, 'data_preprocessor'):  # as mmdet's for several branches
        preprocessor = preprocessor.data_preprocessor
    for name, undo in (('std', torch.mul), ('mean', torch.add)):
        value = getattr(preprocessor, name, None)
        if value is not None:
            value = torch.as_tensor(value).float().cpu().view(-1, 1, 1)
            if len(value) in (1, len(x)):
                x = undo(x, value)
    image = as_rgb(x.permute(1, 2, 0).numpy())
    # Files are read as BGR; mmengine, mmseg before its maintained distribution, and mmpretrain
    # name the swap differently.
    swapped = any(
        getattr(preprocessor, name, False)
        for name in ('_channel_conversion', 'channel_conversion', 'to_rgb')
    )
    return np.ascontiguousarray(image if swapped else image[..., ::-1])


def as_rgb(image: np.ndarray) -> np.ndarray:
    """An image of any kind as one that can be drawn on.

    Args:
        image: (H, W) or (H, W, C), any dtype; (H, W, 3) uint8 comes back as it is.

    Returns:
        (H, W, 3) uint8, by the rules of :func:`input_as_image`; channels are not swapped.
    """
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[2] < 3:
        image = image.mean(2, keepdims=True).repeat(3, 2).astype(image.dtype)
    image = image[..., :3]
    if image.dtype == np.uint8:
        return image
    image = np.nan_to_num(image.astype(np.float32))
    low, high = float(image.min()), float(image.max())
    if not _are_bytes(low, high):
        image = (image - low) * (255 / max(high - low, np.finfo(np.float32).tiny))
    return image.round().clip(0, 255).astype(np.uint8)


def _are_bytes(low: float, high: float) -> bool:
    """Whether values between these may be those of bytes, which augmentations overshoot."""
    standardised = low < 0 and high < 16
    return high == low == 0 or (low > -255 and 1 < high < 2 * 255 and not standardised)


def enlarge(image: np.ndarray, content: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Makes an image ready to be drawn on, and enlarges a small one by a whole factor.

    Args:
        image: Input of the network including padding, in a form that :func:`as_rgb` takes.
        content: Height and width without padding; (0, 0) means all of it.

    Returns:
        The image, (H', W', 3) uint8, and the content's size in it.
    """
    image = as_rgb(image)
    height, width = (c or s for c, s in zip(content, image.shape[:2]))
    factor = -(-MIN_PANEL_SIDE // min(height, width))
    factor = max(1, min(factor, MAX_PANEL_SIDE // max(image.shape[:2])))  # strips are long
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    return image, (height * factor, width * factor)


def arrange(rows: Sequence[Sequence[tuple[str, np.ndarray]]], size: tuple[int, int]) -> np.ndarray:
    """Puts panels side by side under their captions.

    Args:
        rows: Rows of (caption, (H, W, 3) uint8 panel), as many in each row.
        size: Height and width that is shown of each panel, from its top left.

    Returns:
        (rows * (height + caption), columns * width, 3) uint8.
    """
    height, width = size
    lines: list[np.ndarray] = []
    for row in rows:
        strip = np.full((CAPTION_HEIGHT, width * len(row), 3), 255, np.uint8)
        for k, (caption, _) in enumerate(row):
            cv2.putText(
                strip,
                caption,
                (width * k + 4, CAPTION_HEIGHT - 5),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.4,
                (0, 0, 0),
                1,
                cv2.LINE_AA,
            )
        lines += [strip, np.concatenate([panel[:height, :width] for _, panel in row], axis=1)]
    return np.concatenate(lines)
