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
from .content import Content


@dataclass(frozen=True)
class Selection:
    """How scores become slow positions at inference.

    Args:
        type: ``'topk'`` keeps the same number of positions in each image; ``'random'`` as many,
            by scores that are drawn; ``'threshold'`` keeps every position whose probability of
            "slow" reaches ``threshold``, so each image has its own budget.
        threshold: A probability in (0, 1); only used by ``'threshold'``.
        count_padding: Whether positions of padding count in budgets and may be slow, as in the
            published code. By default an image in a batch with larger ones is treated as alone,
            see :func:`~dynsp_mm.ops.find_content`.
    """

    type: str = 'topk'
    threshold: float = 0.5
    count_padding: bool = False

    def __post_init__(self):
        if self.type not in ('topk', 'threshold', 'random'):
            raise UserError(
                f"selection type={self.type!r}: must be 'topk', 'threshold' or 'random'"
            )
        check_number('selection threshold', self.threshold, 0, 1, low_open=True, high_open=True)
        if not isinstance(self.count_padding, bool):
            raise UserError(
                f'selection count_padding={self.count_padding!r}: must be True or False'
            )

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
            or set(value) - {'type', 'threshold', 'count_padding'}
            or 'type' not in value
        ):
            raise UserError(
                f"selection={value!r}: must be 'topk', 'random' or a dict with the "
                "keys 'type', for type='threshold' 'threshold', and, if need be, 'count_padding'"
            )
        return cls(**value)


def budget(positions: int, ratio: float) -> int:
    """Number of positions that a keep ratio leaves, ``int(N * ratio)``.

    Under ``torch.jit.trace`` sizes are tensors, and so is this: the count follows the size.
    """
    if isinstance(positions, Tensor):
        return (positions.double() * ratio).long()
    return int(positions * ratio)


def rank_positions(scores: Tensor, content: Content | None = None) -> Tensor:
    """Positions of each image by falling score.

    A score that is not a number comes first; of equal ones the first in the map.

    Args:
        scores: (B, N), any float dtype.
        content: Positions that are no padding; the others come last.

    Returns:
        (B, N) int64.
    """
    least = -math.inf if content is None else torch.finfo(scores.dtype).min
    scores = scores.nan_to_num(nan=math.inf, posinf=math.inf, neginf=least)
    if content is not None:
        scores = scores.masked_fill(~content.mask, -math.inf)
    if torch.onnx.is_in_onnx_export():  # the older exporter has no symbol for a stable sort
        return scores.sort(dim=1, descending=True).indices
    return scores.sort(dim=1, descending=True, stable=True).indices


def keep_map(
    log_probs: Tensor, ratio: float, selection: Selection, content: Content | None = None
) -> Tensor:
    """Marks the slow positions of each image (arXiv 2207.01580, as its code does).

    Args:
        log_probs: (B, N) log-probability of "slow", any float dtype.
        ratio: Share of positions that ``'topk'`` and ``'random'`` keep: ``int(N * ratio)``.
        selection: The rule.
        content: Positions that are no padding: N counts these, and no others are kept. None
            for all.

    Returns:
        (B, N) bool, True where a position takes the slow path.
    """
    if selection.type == 'threshold':
        keep = log_probs.exp() >= selection.threshold
        return keep if content is None else keep & content.mask
    keep = torch.zeros_like(log_probs, dtype=torch.bool)
    order = rank_positions(log_probs, content)
    if content is None:
        return keep.scatter(1, order[:, : budget(log_probs.shape[1], ratio)], True)
    counts = [budget(count, ratio) for count in content.counts]
    counts = torch.tensor(counts, device=order.device).unsqueeze(1)
    return keep.scatter(1, order, torch.arange(order.shape[1], device=order.device) < counts)


def split_positions(
    log_probs: Tensor, ratio: float, selection: Selection, content: Content | None = None
) -> tuple[Tensor, Tensor]:
    """Splits the batch into slow and fast positions.

    A fixed budget (``'topk'``, ``'random'``) gives tensors whose sizes follow from those of
    ``log_probs`` and from ``content.counts`` alone: nothing waits for values on the device. With
    a threshold sizes depend on values.

    Args:
        log_probs: As of :func:`keep_map`.
        ratio: As of :func:`keep_map`.
        selection: The rule.
        content: As of :func:`keep_map`.

    Returns:
        Flat indices of the slow and of the fast positions, each int64, ascending; together
        they are a permutation of ``0 .. B*N - 1``.
    """
    if selection.type == 'threshold':
        keep = keep_map(log_probs, ratio, selection, content).flatten()
        return keep.nonzero().squeeze(1), keep.logical_not().nonzero().squeeze(1)
    B, N = log_probs.shape
    order = rank_positions(log_probs, content)
    first = torch.arange(0, B * N, N, device=order.device).unsqueeze(1)
    if content is None:
        count = budget(N, ratio)
        parts = [(order[:, :count], order[:, count:], first)]
    else:  # each image has its own count
        counts = [budget(count, ratio) for count in content.counts]
        parts = [
            (rows[:, :count], rows[:, count:], start)
            for rows, count, start in zip(order.split(1), counts, first)
        ]
    # Ascending, so that gathering reads memory in order.
    return tuple(
        torch.cat([(part[side].sort(dim=1).values + part[2]).flatten() for part in parts])
        for side in (0, 1)
    )


def gumbel_keep_mask(log_probs: Tensor) -> Tensor:
    """Samples hard decisions with straight-through gradients (temperature 1).

    Args:
        log_probs: (B, N, 2) float32; class 0 means "slow".

    Returns:
        (B, N, 1) with values 0 or 1 and the gradient of the soft sample.
    """
    return F.gumbel_softmax(log_probs, tau=1.0, hard=True, dim=-1)[..., :1]
