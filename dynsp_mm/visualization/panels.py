"""Panels side by side, with captions, on the image that the network saw."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch.nn as nn
from torch import Tensor

CAPTION_HEIGHT = 18
MIN_PANEL_SIDE = 240  # px; smaller images are enlarged by a whole factor


def input_as_image(x: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """Undoes a data preprocessor's normalisation.

    Args:
        x: Normalised input of the network, (3, H, W).
        preprocessor: Model's ``data_preprocessor`` (its ``mean`` and ``std``, and whether it
            swapped the channels).

    Returns:
        (H, W, 3) uint8, RGB.
    """
    x = x.detach().float().cpu()
    if (
        getattr(preprocessor, 'mean', None) is not None
        and getattr(preprocessor, 'std', None) is not None
    ):
        x = x * preprocessor.std.cpu().view(-1, 1, 1) + preprocessor.mean.cpu().view(-1, 1, 1)
    image = x.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    # Files are read as BGR; mmengine, mmseg before its maintained distribution, and mmpretrain
    # name the swap differently.
    swapped = any(
        getattr(preprocessor, name, False)
        for name in ('_channel_conversion', 'channel_conversion', 'to_rgb')
    )
    return np.ascontiguousarray(image if swapped else image[..., ::-1])


def enlarge(image: np.ndarray, content: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Enlarges a small image by a whole factor.

    Args:
        image: Input of the network including padding, (H, W, 3) uint8.
        content: Height and width without padding; (0, 0) means all of it.

    Returns:
        The image, and the content's size in it.
    """
    height, width = (c or s for c, s in zip(content, image.shape[:2]))
    factor = -(-MIN_PANEL_SIDE // min(height, width))
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
