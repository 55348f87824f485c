"""Losses of sparse training: tensors in, scalar out."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..ops import Content


def keep_ratio_loss(
    masks: Sequence[Tensor],
    ratios: Sequence[float],
    contents: Sequence[Content | None] | None = None,
) -> Tensor:
    """Holds each image's share of slow positions at its target.

    ``mean_k mean_b (mean_pos(m_k) - ratio_k)^2``, the ratio loss of
    arXiv 2106.02034 as the code of arXiv 2207.01580 computes it.

    Args:
        masks: Mask of 0 and 1 with gradients, (B, N_k, 1), for each decision k.
        ratios: Target of each decision.
        contents: Positions of each decision that are no padding: shares are of these. None, also
            for a single decision, for all.

    Returns:
        Scalar, float32.

    Raises:
        UserError: If there is no mask or the lengths differ.
    """
    if not masks or len(masks) != len(ratios):
        raise UserError(
            f'{len(masks)} masks and {len(ratios)} ratios: needs one or more masks '
            'and a ratio for each'
        )
    terms = []
    for mask, ratio, content in zip(masks, ratios, contents or [None] * len(masks)):
        mask = mask.float()
        share = mask.mean(1) if content is None else content.mean(mask).squeeze(1)
        terms.append((share - ratio).square().mean())
    return torch.stack(terms).mean()


def map_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the mean squared difference of two normalised maps, over all positions.

    The token distillation of arXiv 2207.01580 for hierarchical networks, as its code does.

    Args:
        student: Map of (B, C, H, W), any float dtype.
        teacher: Tensor of the same shape, without gradient.

    Returns:
        Scalar, float32.
    """
    return F.mse_loss(student.float(), teacher.float())


def logit_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the KL divergence of the student's class probabilities from the teacher's.

    ``sum_k p_k (log p_k - log q_k)``, p the teacher's, averaged over images (arXiv 2207.01580), and
    over positions where there are any.

    Args:
        student: Logits of (B, K) or (B, K, H, W), any float dtype.
        teacher: Tensor of the same shape, without gradient.

    Returns:
        Scalar, float32.
    """
    divergence = F.kl_div(
        student.float().log_softmax(1),
        teacher.float().log_softmax(1),
        reduction='none',
        log_target=True,
    )
    return divergence.sum(1).mean()
