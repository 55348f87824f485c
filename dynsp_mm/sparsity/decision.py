"""What is decided, and what flows through the blocks that obey.

Shape legend: B images, N = H * W positions, C channels, M = B * N tokens, K of them chosen.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import Content, Selection, gumbel_keep_mask, keep_map, merge_streams, split_positions


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Decision:
    """Which positions of a map take the slow path.

    Either ``mask`` is set (training) or ``slow`` and ``fast`` are (inference).

    Attributes:
        scores: (B, N) float32 log-probability of "slow".
        hw: Size (H, W) of the map, N = H * W.
        target: The keep ratio asked for.
        mask: (B, N, 1) of 0 and 1 in the dtype of the features, with straight-through
            gradients.
        slow: Flat indices (int64) into B * N of the slow positions.
        fast: Flat indices (int64) of the others.
        content: Positions that are no padding; the others are fast and count in no share. None
            for all.
        level: What one score stands for: 'token', 'window', 'block' or 'image'.
    """

    scores: Tensor
    hw: tuple[int, int]
    target: float
    mask: Tensor | None = None
    slow: Tensor | None = None
    fast: Tensor | None = None
    content: Content | None = None
    level: str = 'token'

    def __repr__(self) -> str:
        shares = ', '.join(f'{share:.3f}' for share in self.keep_ratio.tolist())
        kind = 'inference' if self.mask is None else 'training'
        return f'Decision({kind}, hw={self.hw}, target={self.target}, keep_ratio=({shares}))'

    @property
    def keep(self) -> Tensor:
        """(B, H, W) bool, True where slow."""
        if self.mask is not None:
            keep = self.mask.detach().squeeze(-1) > 0.5
        else:
            keep = torch.zeros_like(self.scores, dtype=torch.bool)
            keep.view(-1)[self.slow] = True
        return keep.view(-1, *self.hw)

    @property
    def keep_ratio(self) -> Tensor:
        """(B,) float32, realised share of slow positions of each image, without gradient.

        Padding does not count, see ``content``.
        """
        keep = self.keep.flatten(1).unsqueeze(-1).float()
        return (keep.mean(1) if self.content is None else self.content.mean(keep)).flatten()


def decide(
    log_probs: Tensor,
    hw: tuple[int, int],
    ratio: float,
    selection: Selection,
    dtype: torch.dtype | None = None,
    content: Content | None = None,
) -> Decision:
    """Turns scores into a decision for every position of each map.

    Args:
        log_probs: (B, N, 2) float32 log-probabilities of slow and fast, or (B, N) scores alone.
        hw: Size (H, W) of the map, N = H * W.
        ratio: Keep ratio, the budget of 'topk' and 'random'.
        selection: The rule at inference.
        dtype: Dtype of the mask of the training forward, None for inference. In training hard
            Gumbel decisions are sampled (arXiv 2207.01580); scores alone are selected from as at
            inference.
        content: Positions that are no padding, None for all. The others are fast.
    """
    scores = log_probs[..., 0] if log_probs.dim() == 3 else log_probs
    if dtype is None:
        slow, fast = split_positions(scores, ratio, selection, content)
        return Decision(scores, hw, ratio, slow=slow, fast=fast, content=content)
    if log_probs.dim() == 3:
        mask = gumbel_keep_mask(log_probs)
        if content is not None:
            mask = mask * content.mask.unsqueeze(-1)
    else:
        mask = keep_map(scores, ratio, selection, content).unsqueeze(-1)
    return Decision(scores, hw, ratio, mask=mask.to(dtype), content=content)


class Rows(NamedTuple):
    """Where the tokens that a branch is given come from.

    Attributes:
        index: (K,) int64 flat indices into the B * N positions, for (K, C) tokens; None for the
            (B, N, C) tokens of whole maps.
        batch: Number B of images; only with ``index``.
        positions: Number N of positions of an image; only with ``index``.
        weight: (B, N, 1) in [0, 1], how much each token of whole maps counts.
    """

    index: Tensor | None = None
    batch: int = 0
    positions: int = 0
    weight: Tensor | None = None

    @property
    def image(self) -> Tensor | None:
        """(K,) int64 number of the image of each token; None for whole maps."""
        return None if self.index is None else self.index // self.positions


class TokenStream(NamedTuple):
    """What flows from block to block.

    Attributes:
        tokens: (B, N, C) tokens.
        grid: Size (H, W) of the full map.
        index: (B, N) int64 positions of the survivors on the full map; None for all of them.
        prefix: Number of leading tokens (class, distillation) that are never decided on.
        size: (B, N, 1) number of positions that each merged token stands for; None for one each.
        fast: (B, N, C) fast map of the two-stream training forward (arXiv 2207.01580), whose
            slow map is ``tokens``; None where one map flows.
        content: Positions that are no padding; None for all.
        owned: Whether the tokens were made on the way and nobody else holds them, so that
            prepared forms may write into them.
    """

    tokens: Tensor
    grid: tuple[int, int]
    index: Tensor | None = None
    prefix: int = 0
    size: Tensor | None = None
    fast: Tensor | None = None
    content: Content | None = None
    owned: bool = False

    def merged(self, decision: Decision | None) -> Tensor:
        """(B, N, C): each position from the map that the last decision chose for it."""
        if self.fast is None:
            return self.tokens
        return merge_streams(decision.mask, self.tokens, self.fast)

    def writable(self) -> Tensor:
        """The tokens in contiguous memory that may be written into: copied unless owned."""
        if self.owned:
            return self.tokens.contiguous()
        return self.tokens.clone(memory_format=torch.contiguous_format)
