"""Looking at decisions and semantic tokens without touching the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from ..layers import LayerNorm2d, SemanticBlock
from ..sparsity import Decision, TokenPredictor


class Record(NamedTuple):
    """One decision and the predictor that took it (its name in the model)."""

    predictor: str
    decision: Decision


class DecisionLog(list[Record]):
    """Decisions in the order they were taken."""

    @property
    def decisions(self) -> list[Decision]:
        """The decisions alone."""
        return [record.decision for record in self]

    def by_predictor(self) -> dict[str, list[Decision]]:
        """Decisions of each predictor, in the order the predictors first decided."""
        grouped: dict[str, list[Decision]] = {}
        for name, decision in self:
            grouped.setdefault(name, []).append(decision)
        return grouped


@contextmanager
def record_decisions(model: nn.Module) -> Iterator[DecisionLog]:
    """Records every decision that ``model`` takes inside the ``with`` block.

    Example::

        with record_decisions(detector) as log:
            detector.test_step(batch)
        for name, decision in log:
            decision.keep        # (B, H, W) bool, True where slow
            decision.scores      # (B, H * W) log-probability of "slow"
            decision.keep_ratio  # (B,) realised share of slow positions

    Args:
        model: Any module that contains sparse backbones; a dense model gives an empty log.

    Yields:
        The log, filled as forwards run. It keeps tensors alive (with their graph in training):
        ``clear()`` it between forwards when it is held for long.
    """
    log = DecisionLog()
    with _listening(
        model,
        TokenPredictor,
        lambda name, module, args, decision: log.append(Record(name, decision)),
    ):
        yield log


class BackboneCall(NamedTuple):
    """What a backbone was given, (B, C, H, W), and its normalised maps, each (B, C_i, H_i, W_i).

    Maps keep their graph in training. A backbone that returns averaged maps has its whole maps
    here, normalised position by position.
    """

    image: Tensor
    maps: tuple[Tensor, ...]


@contextmanager
def record_maps(backbone: nn.Module) -> Iterator[list[BackboneCall]]:
    """Records input and normalised maps of each forward of a backbone.

    Args:
        backbone: One that returns a tuple of maps; or a ``DynamicConvNeXt`` that averages them.

    Yields:
        A list with one entry for each forward inside the ``with`` block.
    """
    calls: list[BackboneCall] = []
    whole: list[Tensor] = []
    norms: list[LayerNorm2d] = []
    if getattr(backbone, 'gap_before_final_norm', False):
        norms = [
            norm
            for norm in (getattr(backbone, f'norm{i}') for i in backbone.out_indices)
            if isinstance(norm, LayerNorm2d)
        ]

    def start(module: nn.Module, args: tuple) -> None:
        whole.clear()

    def keep_whole(module: LayerNorm2d, args: tuple, output: Tensor) -> None:
        whole.append(module.forward(args[0]))

    def finish(module: nn.Module, args: tuple, output: tuple[Tensor, ...]) -> None:
        calls.append(BackboneCall(args[0], tuple(whole if norms else output)))

    handles = [backbone.register_forward_pre_hook(start), backbone.register_forward_hook(finish)]
    handles += [norm.register_forward_hook(keep_whole) for norm in norms]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class SemanticAttention(NamedTuple):
    """How semantic tokens and image positions attend to each other in one block.

    Attributes:
        block: Name of the block in the model.
        role: 'generate' or 'refine': ``weights[b, r, c]`` is what the token at (r, c) of the
            semantic map takes from each image position. 'recover': what each image position
            takes from that token.
        weights: (B, H', W', H, W) float32, averaged over heads; H' x W' semantic tokens, H x W
            image positions. The weights of a token ('recover': of a position) sum to 1, or less
            where part of the attention goes elsewhere: to padding, or to other semantic tokens.
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

    with _listening(model, SemanticBlock, append):
        yield log


@contextmanager
def _listening(model: nn.Module, kind: type[nn.Module], listener: Callable) -> Iterator[None]:
    """Calls ``listener(name, module, args, output)`` after each forward of modules of a kind."""

    def listen(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output) -> None:
            listener(name, module, args, output)

        return hook

    handles = [
        module.register_forward_hook(listen(name))
        for name, module in model.named_modules()
        if isinstance(module, kind)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
