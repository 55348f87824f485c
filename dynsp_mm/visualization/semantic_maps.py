"""Overlays of what semantic tokens stand for on the image that the network saw."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..recording import SemanticAttention
from .panels import arrange, as_rgb, enlarge

BORDER = (255, 255, 255)  # RGB, between regions
GOLDEN_ANGLE = 137.508  # degrees; neighbouring numbers get unlike hues


def draw_regions(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Tints each region in a colour of its own and outlines it.

    Args:
        image: Image of (H, W, 3) uint8, RGB, or in another form that
            :func:`~dynsp_mm.visualization.as_rgb` takes.
        regions: Map of (h, w) int, number of the token that weighs most; each entry covers H / h
            by W / w pixels.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    image = as_rgb(image)
    height, width = image.shape[:2]
    hues = (regions * GOLDEN_ANGLE % 360 / 2).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 160), np.full_like(hues, 230)], -1)
    tint = cv2.resize(
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), (width, height), interpolation=cv2.INTER_NEAREST
    )
    out = cv2.addWeighted(image, 0.55, tint, 0.45, 0)
    regions = cv2.resize(
        regions.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
    )
    border = np.zeros((height, width), bool)
    border[1:] |= regions[1:] != regions[:-1]
    border[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    out[border] = BORDER
    return out


def draw_weights(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Overlays weights as heat, from dark blue (the smallest) to red (the largest).

    Args:
        image: Image of (H, W, 3) uint8, RGB, or in another form that
            :func:`~dynsp_mm.visualization.as_rgb` takes.
        weights: Map of (h, w) float, such as one token's map or ``received``.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    image = as_rgb(image)
    height, width = image.shape[:2]
    weights = np.nan_to_num(weights)
    low, high = float(weights.min()), float(weights.max())
    heat = (weights - low) / max(high - low, np.finfo(np.float32).tiny)
    heat = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.addWeighted(image, 0.5, heat, 0.5, 0)


def draw_semantic_attention(
    image: np.ndarray,
    attentions: Sequence[SemanticAttention],
    index: int = 0,
    content: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Draws a row for each block: the image, the region of each token, and a map of weights.

    The map is, for 'generate' and 'refine', the attention that a position receives on average from
    the tokens that see it; for 'recover', the weight of the token that it draws on most.

    Args:
        image: Input of the network including padding, (H, W, 3) uint8, RGB, or in another form that
            :func:`~dynsp_mm.visualization.as_rgb` takes.
        attentions: Attention of blocks on this input, in order.
        index: Place of the image in the batch.
        content: Height and width without padding; (0, 0) means all of it.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    image, size = enlarge(image, content)
    rows = []
    for attention in attentions:
        # By block: 'stages.2.blocks.7' is block 7 of its stage.
        name = f'{attention.role}, block {attention.block.rsplit(".", 1)[-1]}'
        tokens = attention.weights.shape[1] * attention.weights.shape[2]
        if attention.role == 'recover':
            what, weights = 'weight of its strongest token', attention.strongest[index]
        else:  # near the border fewer tokens see a position
            seen = (attention.weights[index] > 0).sum((0, 1)).clamp_min(1)
            what, weights = 'mean weight from tokens', attention.received[index] / seen
        weights = weights.cpu().numpy()
        rows.append(
            [
                (f'{name}: {tokens} tokens', image),
                (
                    'regions: strongest token',
                    draw_regions(image, attention.regions[index].cpu().numpy()),
                ),
                (
                    f'{what}, {weights.min():.2g} to {weights.max():.2g}',
                    draw_weights(image, weights),
                ),
            ]
        )
    return arrange(rows, size)
