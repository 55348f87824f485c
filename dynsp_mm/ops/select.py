"""Scores -> decision.

Shape legend: B images, N = H * W positions. A *flat index* counts positions through the
whole batch, 0 .. B*N - 1, so that images with different budgets need no padding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor


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
            raise ValueError(
                f"selection type={self.type!r}: must be 'topk', 'threshold' or 'random'"
            )
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, Real)
            or not 0 < self.threshold < 1
        ):
            raise ValueError(f'selection threshold={self.threshold!r}: must be a number in (0, 1)')

    @classmethod
    def parse(cls, value: Union[str, Mapping, 'Selection']) -> 'Selection':
        """Builds a selection from a config value: a type such as ``'topk'``, or a dict with it.

        Raises:
            ValueError: For an unknown type, key or threshold.
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
            raise ValueError(
                f"selection={value!r}: must be 'topk', 'random' or a dict with the "
                "keys 'type' and, for type='threshold', 'threshold'"
            )
        return cls(**value)


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
    num_keep = int(log_probs.shape[1] * ratio)
    if num_keep == 0:
        return torch.zeros_like(log_probs, dtype=torch.bool)
    # The order of a stable sort without one: a score that is not a number comes first, and of
    # equal ones the first.
    scores = log_probs.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    last = scores.topk(num_keep, dim=1, sorted=False).values.amin(1, keepdim=True)
    above, equal = scores > last, scores == last
    return above | equal & (equal.cumsum(1) <= num_keep - above.sum(1, keepdim=True))


def split_positions(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Splits the batch into slow and fast positions.

    Args:
        keep: (B, N) bool.

    Returns:
        Flat indices of the slow and of the fast positions, each int64, ascending; together
        they are a permutation of ``0 .. B*N - 1``.
    """
    flat = keep.flatten()
    return flat.nonzero().squeeze(1), flat.logical_not().nonzero().squeeze(1)


def gumbel_keep_mask(log_probs: Tensor) -> Tensor:
    """Samples hard decisions with straight-through gradients (temperature 1).

    Args:
        log_probs: (B, N, 2) float32; class 0 means "slow".

    Returns:
        (B, N, 1) with values 0 or 1 and the gradient of the soft sample.
    """
    return F.gumbel_softmax(log_probs, tau=1.0, hard=True, dim=-1)[..., :1]
