"""What backbones with fast and slow paths share: arguments and predictors."""

import logging
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Union

import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from ..layers import FastPath
from ..ops import Selection
from ..sparsity import TokenPredictor
from .base import Backbone

MIXINGS = ('two_stream', 'merged')
KeepRatios = Union[None, float, Sequence[float]]


def is_dense(keep_ratios: KeepRatios) -> bool:
    """Whether a ``keep_ratios`` argument asks for the dense network: None or 1.0."""
    if isinstance(keep_ratios, bool) or not isinstance(keep_ratios, Real):
        return keep_ratios is None
    return keep_ratios == 1


def parse_keep_ratios(keep_ratios: KeepRatios, count: int) -> tuple[float, ...] | None:
    """Checks keep ratios and expands a single number.

    Args:
        keep_ratios: None or 1.0 (dense); one number r, which means (r, r - 0.2, r - 0.4, ...)
            rounded to 6 decimals; or one ratio per predictor.
        count: Number of predictors.

    Returns:
        One ratio per predictor, or None for dense.

    Raises:
        ValueError: For a wrong type or count, a ratio outside (0, 1], increasing ratios.
    """
    if is_dense(keep_ratios):
        return None
    if isinstance(keep_ratios, Real) and not isinstance(keep_ratios, bool):
        ratios = tuple(round(float(keep_ratios) - 0.2 * k, 6) for k in range(count))
        if not (keep_ratios < 1 and ratios[-1] > 0):
            raise ValueError(
                f'keep_ratios={keep_ratios!r}: one number r stands for r - 0.2 * k at predictor '
                f'k = 0 .. {count - 1}, so it must lie in ({0.2 * (count - 1):g}, 1]; give a tuple '
                f'of {count} ratios for other budgets'
            )
        return ratios
    if not isinstance(keep_ratios, (list, tuple)):
        raise ValueError(
            f'keep_ratios={keep_ratios!r}: must be None, a number or a tuple of '
            f'{count} numbers, one per predictor'
        )
    ratios = tuple(keep_ratios)
    for k, ratio in enumerate(ratios):
        if not isinstance(ratio, Real) or isinstance(ratio, bool) or not 0 < ratio <= 1:
            raise ValueError(
                f'keep_ratios={ratios!r}: each ratio must lie in (0, 1]; '
                f'got {ratio!r} at position {k}'
            )
    if len(ratios) != count:
        raise ValueError(
            f'keep_ratios={ratios!r}: needs one ratio for each of the {count} '
            f'predictors; got {len(ratios)}'
        )
    for k, ratio in enumerate(ratios):
        if k and ratio > ratios[k - 1]:
            raise ValueError(
                f'keep_ratios={ratios!r}: ratios must not increase from one predictor '
                f'to the next; got {ratio!r} after {ratios[k - 1]!r} at position {k}'
            )
    return tuple(float(ratio) for ratio in ratios)


def parse_prune_blocks(prune_blocks: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Checks the blocks that get a predictor before them.

    Args:
        prune_blocks: Ascending block indices, or None for ``k * max(1, depth // 9)``,
            k = 1, 2, 3, which is the published placement.
        depth: Blocks in the stage.

    Raises:
        ValueError: For indices that are not ascending or lie beyond the stage.
    """
    if prune_blocks is None:
        prune_blocks = tuple(k * max(1, depth // 9) for k in (1, 2, 3))
    blocks = tuple(prune_blocks) if isinstance(prune_blocks, (list, tuple)) else (prune_blocks,)
    if not blocks or not all(isinstance(b, Integral) and not isinstance(b, bool) for b in blocks):
        raise ValueError(f'prune_blocks={prune_blocks!r}: must be a tuple of block indices')
    if any(b <= a for a, b in zip(blocks, blocks[1:])):
        raise ValueError(f'prune_blocks={blocks!r}: block indices must ascend')
    for block in blocks:
        if not 0 <= block < depth:
            raise ValueError(
                f'prune_blocks={blocks!r}: block {block} is beyond the sparse stage, '
                f'which has blocks 0 .. {depth - 1}'
            )
    return tuple(int(block) for block in blocks)


class SparseBackbone(Backbone):
    """Base of backbones in which one stage has fast and slow paths.

    A subclass calls :meth:`_setup_sparsity` before it builds its stages, gives those blocks of
    stage ``prune_stage`` a fast path that :meth:`_has_fast_path` names, and passes
    :meth:`_predictors_of`, ``selection`` and ``mixing`` to ``run_stage``.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._warned = False

    # ------------------------------------------------------------------ sparsity
    def _setup_sparsity(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        keep_ratios: KeepRatios,
        prune_stage: int,
        prune_blocks: Sequence[int] | None,
        selection: str | Mapping,
        mixing: str,
        predictor_eps: float,
    ) -> None:
        if not isinstance(prune_stage, Integral) or not 0 <= prune_stage < len(depths):
            raise ValueError(
                f'prune_stage={prune_stage!r}: must be the index of a stage, 0 .. {len(depths) - 1}'
            )
        self.prune_stage = int(prune_stage)
        self.selection = Selection.parse(selection)
        if mixing not in MIXINGS:
            raise ValueError(f'mixing={mixing!r}: must be one of {", ".join(MIXINGS)}')
        self.mixing = mixing
        self.prune_blocks: tuple[int, ...] = ()
        self._keep_ratios: tuple[float, ...] | None = None
        self.token_predictors = nn.ModuleList()
        # Blocks are only looked at when something is to be pruned: a dense model may be shallow.
        if is_dense(keep_ratios):
            return
        blocks = parse_prune_blocks(prune_blocks, depths[prune_stage])
        self._keep_ratios = parse_keep_ratios(keep_ratios, len(blocks))
        self.prune_blocks = blocks
        # Outside the stages, where the libraries' layer-decay constructors parse names.
        self.token_predictors.extend(
            TokenPredictor(widths[prune_stage], predictor_eps) for _ in blocks
        )
        if self.selection.type == 'random':  # they are not asked
            self.token_predictors.requires_grad_(False)

    @property
    def keep_ratios(self) -> tuple[float, ...] | None:
        """One ratio per predictor, None when dense. May be set on a sparse model."""
        return self._keep_ratios

    @keep_ratios.setter
    def keep_ratios(self, value: KeepRatios) -> None:
        if self._keep_ratios is None:
            raise ValueError(
                f'keep_ratios={value!r}: this backbone was built dense and has no '
                'predictors; build it with keep_ratios'
            )
        count = len(self.prune_blocks)
        self._keep_ratios = parse_keep_ratios(value, count) or (1.0,) * count

    def _has_fast_path(self, stage: int, block: int) -> bool:
        return (
            bool(self.prune_blocks) and stage == self.prune_stage and block >= self.prune_blocks[0]
        )

    def _predictors_of(self, stage: int) -> dict[int, tuple[TokenPredictor, float]]:
        if not self.prune_blocks or stage != self.prune_stage:
            return {}
        return dict(zip(self.prune_blocks, zip(self.token_predictors, self._keep_ratios)))

    # ------------------------------------------------------------------ hooks of Backbone
    def _check_input(self, x: Tensor, channels: int) -> None:
        super()._check_input(x, channels)
        if self.training and self.prune_blocks and not self._warned:
            self._warned = True
            # Whoever holds the keep ratio listens to the decisions: SpatialSparsityHook does.
            predictor = self.token_predictors[0]
            if predictor.training and not predictor._forward_hooks:
                print_log(
                    f'{type(self).__name__} is trained with keep_ratios={self.keep_ratios} '
                    'but nothing holds its keep ratio; add custom_hooks = '
                    "[dict(type='SpatialSparsityHook')] to the config.",
                    'current',
                    logging.WARNING,
                )

    def _init_new_parts(self) -> None:
        for module in self.modules():
            if isinstance(module, (TokenPredictor, FastPath)):
                module.reset_parameters()
