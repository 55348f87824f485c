"""Scores -> decision.

Shape legend: B images, N = H * W positions. A *flat index* counts positions through the
whole batch, 0 .. B*N - 1, so that images with different budgets need no padding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError, check_number


@dataclass(frozen=True)
class Selection:
    """How scores become slow positions at inference.

    Args:
        type: ``'topk'`` keeps the same number of positions in each image; ``'random'`` as many,
            by scores that are drawn; ``'threshold'`` keeps every position whose probability of
            "slow" reaches ``threshold``, so each image has its own budget.
        threshold: A probability in (0, 1); only used by ``'threshold'``.
    """

    type: str = 'topk'
    threshold: float = 0.5

    def __post_init__(self):
        if self.type not in ('topk', 'threshold', 'random'):
            raise UserError(
                f"selection type={self.type!r}: must be 'topk', 'threshold' or 'random'"
            )
        check_number('selection threshold', self.threshold, 0, 1, low_open=True, high_open=True)

    @classmethod
    def parse(cls, value: Union[str, Mapping, 'Selection']) -> 'Selection':
        """Builds a selection from a config value: a type such as ``'topk'``, or a dict with it.

        Raises:
            UserError: For an unknown type, key or threshold.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(type=value)
        if (
            not isinstance(value, Mapping)
            or set(value) - {'type', 'threshold'}
            or 'type' not in value
        ):
            raise UserError(
                f"selection={value!r}: must be 'topk', 'random' or a dict with the "
                "keys 'type' and, for type='threshold', 'threshold'"
            )
        return cls(**value)


def rank_positions(scores: Tensor) -> Tensor:
    """Positions of each image by falling score.

    A score that is not a number comes first; of equal ones the first in the map.

    Args:
        scores: (B, N), any float dtype.

    Returns:
        (B, N) int64.
    """
    scores = scores.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    return scores.sort(dim=1, descending=True, stable=True).indices


def keep_map(log_probs: Tensor, ratio: float, selection: Selection) -> Tensor:
    """Marks the slow positions of each image (arXiv 2207.01580, as its code does).

    Args:
        log_probs: (B, N) log-probability of "slow", any float dtype.
        ratio: Share of positions that ``'topk'`` and ``'random'`` keep: ``int(N * ratio)``.
        selection: The rule.

    Returns:
        (B, N) bool, True where a position takes the slow path.
    """
    if selection.type == 'threshold':
        return log_probs.exp() >= selection.threshold
    first = rank_positions(log_probs)[:, : int(log_probs.shape[1] * ratio)]
    return torch.zeros_like(log_probs, dtype=torch.bool).scatter(1, first, True)


def split_positions(log_probs: Tensor, ratio: float, selection: Selection) -> tuple[Tensor, Tensor]:
    """Splits the batch into slow and fast positions.

    A fixed budget (``'topk'``, ``'random'``) gives tensors whose sizes follow from those of
    ``log_probs`` alone: nothing waits for values on the device. With a threshold sizes depend on
    values.

    Args:
        log_probs: As of :func:`keep_map`.
        ratio: As of :func:`keep_map`.
        selection: The rule.

    Returns:
        Flat indices of the slow and of the fast positions, each int64, ascending; together
        they are a permutation of ``0 .. B*N - 1``.
    """
    if selection.type == 'threshold':
        keep = keep_map(log_probs, ratio, selection).flatten()
        return keep.nonzero().squeeze(1), keep.logical_not().nonzero().squeeze(1)
    B, N = log_probs.shape
    order, count = rank_positions(log_probs), int(N * ratio)
    first = torch.arange(0, B * N, N, device=order.device).unsqueeze(1)
    slow, fast = order[:, :count], order[:, count:]
    # Ascending, so that gathering reads memory in order.
    return tuple((rows.sort(dim=1).values + first).flatten() for rows in (slow, fast))


def gumbel_keep_mask(log_probs: Tensor) -> Tensor:
    """Samples hard decisions with straight-through gradients (temperature 1).

    Args:
        log_probs: (B, N, 2) float32; class 0 means "slow".

    Returns:
        (B, N, 1) with values 0 or 1 and the gradient of the soft sample.
    """
    return F.gumbel_softmax(log_probs, tau=1.0, hard=True, dim=-1)[..., :1]
