"""Overlays of kept regions on the image that the network saw."""
from typing import Sequence, Tuple

import cv2
import numpy as np
import torch.nn as nn
from torch import Tensor

from ..layers import Decision

OUTLINE = (255, 196, 0)  # RGB, around kept regions
CAPTION_HEIGHT = 18
MIN_PANEL_SIDE = 240  # px; smaller images are enlarged by a whole factor


def input_as_image(x: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """Undoes a data preprocessor's normalisation.

    Args:
        x: (3, H, W) normalised network input.
        preprocessor: The model's ``data_preprocessor`` (its ``mean`` and ``std``, and whether it
            swapped the channels).

    Returns:
        (H, W, 3) uint8, RGB.
    """
    x = x.detach().float().cpu()
    if getattr(preprocessor, 'mean', None) is not None and getattr(preprocessor, 'std', None) \
            is not None:
        x = x * preprocessor.std.cpu().view(-1, 1, 1) + preprocessor.mean.cpu().view(-1, 1, 1)
    image = x.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    # Files are read as BGR; mmengine's preprocessors and mmpretrain's name the swap differently.
    swapped = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False))
    return np.ascontiguousarray(image if swapped else image[..., ::-1])


def draw_keep_map(image: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Dims what took the fast path and outlines what took the slow one.

    Args:
        image: (H, W, 3) uint8, RGB.
        keep: (h, w) bool, True where slow; each entry covers H / h by W / w pixels.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    height, width = image.shape[:2]
    mask = cv2.resize(keep.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    grey = image.mean(-1, keepdims=True) * 0.35
    out = np.where(mask[..., None] > 0, image, grey).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(np.ascontiguousarray(out), contours, -1, OUTLINE, 1)


def draw_decisions(image: np.ndarray, decisions: Sequence[Decision], index: int = 0,
                   content: Tuple[int, int] = (0, 0)) -> np.ndarray:
    """The image beside the keep map of each decision, with the realised keep ratios.

    Args:
        image: (H, W, 3) uint8, RGB, the network's input including padding.
        decisions: Decisions on this input, in order.
        index: The image's place in the batch.
        content: Height and width without padding; (0, 0) means all of it.

    Returns:
        (f * H' + caption, n * f * W', 3) uint8, RGB, for n = 1 + number of decisions, H' and W'
        the content's size and f the factor that enlarges small images.
    """
    height, width = (c or s for c, s in zip(content, image.shape[:2]))
    factor = -(-MIN_PANEL_SIDE // min(height, width))
    height, width = height * factor, width * factor
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    panels, captions = [image], ['input']
    for k, decision in enumerate(decisions):
        panels.append(draw_keep_map(image, decision.keep[index].cpu().numpy()))
        captions.append(f'{k}: keeps {float(decision.keep_ratio[index]):.0%}')
    panels = [panel[:height, :width] for panel in panels]
    strip = np.full((CAPTION_HEIGHT, width * len(panels), 3), 255, np.uint8)
    for k, caption in enumerate(captions):
        cv2.putText(strip, caption, (width * k + 4, CAPTION_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX,
                    0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, np.concatenate(panels, axis=1)])
