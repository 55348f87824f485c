"""Attention between semantic tokens and image positions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from ..layers import SemanticBlock
from .recorder import Recorder


class SemanticAttention(NamedTuple):
    """How semantic tokens and image positions attend to each other in one block.

    Attributes:
        block: Name of the block in the model.
        role: Role of the block. 'generate' or 'refine': ``weights[b, r, c]`` is what the token at
            (r, c) of the semantic map takes from each image position. 'recover': what each image
            position takes from that token.
        weights: Attention of (B, H', W', H, W) float32, averaged over heads; H' x W' semantic
            tokens, H x W image positions. The weights of a token ('recover': of a position) sum to
            1, or less where some of the attention goes elsewhere: to padding, or to other semantic
            tokens.
    """

    block: str
    role: str
    weights: Tensor

    @property
    def regions(self) -> Tensor:
        """(B, H, W) int64: number, in raster order, of the token that weighs most at a position.

        Where no token attends to a position, 0.
        """
        return self.weights.flatten(1, 2).argmax(1)

    @property
    def received(self) -> Tensor:
        """(B, H, W) float32: sum of the weights of all tokens at a position ('recover': 1)."""
        return self.weights.sum((1, 2))

    @property
    def strongest(self) -> Tensor:
        """(B, H, W) float32: largest weight of a token at a position."""
        return self.weights.amax((1, 2))


@contextmanager
def record_semantic_attention(model: nn.Module) -> Iterator[list[SemanticAttention]]:
    """Records how semantic tokens attend, in each forward inside the ``with`` block.

    It concerns the thread that entered it.

    Example::

        with record_semantic_attention(detector) as log:
            detector.test_step(batch)
        for block, role, weights in log:
            weights[0, 4, 7]  # (H, W): what token (4, 7) of image 0 takes from each position

    The weights are computed beside the forward, which itself never has them at once.

    Args:
        model: Any module that contains an :class:`STViTSwin`; others give an empty log.

    Yields:
        A list with one entry for each 'generate', 'refine' and 'recover' block, filled as forwards
        run. An entry has tokens x positions numbers: 15 MB for an image of 800 x 1344.
    """
    log: list[SemanticAttention] = []

    def append(name: str, block: SemanticBlock, args: tuple, output: Tensor) -> None:
        if block.role not in ('generate', 'refine', 'recover'):
            return
        with torch.no_grad():
            weights = block.attention(*args)
        if block.role == 'recover':  # queries are the image positions
            weights = weights.permute(0, 3, 4, 1, 2)
        log.append(SemanticAttention(name, block.role, weights))

    with Recorder(model, {SemanticBlock: append}):
        yield log
