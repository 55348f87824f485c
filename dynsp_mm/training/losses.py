"""Losses of sparse training: tensors in, scalar out."""
from typing import Sequence

import torch
from torch import Tensor


def keep_ratio_loss(masks: Sequence[Tensor], ratios: Sequence[float]) -> Tensor:
    """Holds each image's share of slow positions at its target.

    ``mean_k mean_b (mean_pos(m_k) - ratio_k)^2``, the ratio loss of
    arXiv 2106.02034 as the code of arXiv 2207.01580 computes it.

    Args:
        masks: For each decision k a (B, N_k, 1) mask of 0 and 1 with gradients.
        ratios: The target of each decision.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: If there is no mask or the lengths differ.
    """
    if not masks or len(masks) != len(ratios):
        raise ValueError(f'{len(masks)} masks and {len(ratios)} ratios: needs one or more masks '
                         'and a ratio for each')
    terms = [(mask.float().mean(dim=(1, 2)) - ratio).square().mean()
             for mask, ratio in zip(masks, ratios)]
    return torch.stack(terms).mean()
