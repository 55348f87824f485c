"""Overlays of kept regions on the image that the network saw."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..sparsity import Decision
from .panels import arrange, as_rgb, enlarge

OUTLINE = (255, 196, 0)  # RGB, around kept regions


def draw_keep_map(image: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Dims what took the fast path and outlines what took the slow one.

    Args:
        image: Image of (H, W, 3) uint8, RGB, or in another form that
            :func:`~dynsp_mm.visualization.as_rgb` takes.
        keep: Map of (h, w) bool, True where slow; each entry covers H / h by W / w pixels.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    image = as_rgb(image)
    height, width = image.shape[:2]
    mask = cv2.resize(keep.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    grey = image.mean(-1, keepdims=True) * 0.35
    out = np.where(mask[..., None] > 0, image, grey).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(np.ascontiguousarray(out), contours, -1, OUTLINE, 1)


def draw_decisions(
    image: np.ndarray,
    decisions: Sequence[Decision],
    index: int = 0,
    content: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Draws the image beside the keep map of each decision, with the realised keep ratios.

    Args:
        image: Input of the network including padding, (H, W, 3) uint8, RGB, or in another form that
            :func:`~dynsp_mm.visualization.as_rgb` takes.
        decisions: Decisions on this input, in order.
        index: Place of the image in the batch.
        content: Height and width without padding; (0, 0) means all of it.

    Returns:
        (f * H' + caption, n * f * W', 3) uint8, RGB, for n = 1 + number of decisions, H' and W'
        the content's size and f the factor that enlarges small images.
    """
    image, size = enlarge(image, content)
    row = [('input', image)]
    for k, decision in enumerate(decisions):
        row.append(
            (
                f'{k}: keeps {float(decision.keep_ratio[index]):.0%}',
                draw_keep_map(image, decision.keep[index].cpu().numpy()),
            )
        )
    return arrange([row], size)
