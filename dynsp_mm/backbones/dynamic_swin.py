"""Swin with fast and slow paths in one stage (arXiv 2207.01580; public code
raoyongming/DynamicViT), a drop-in for the Swin of mmdet, mmseg and mmpretrain.
"""

from collections.abc import Mapping, Sequence

import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from ..layers import SwinBlock
from .sparse_backbone import KeepRatios, SparseBackbone
from .swin_backbone import SwinBackbone, SwinStage


class SparseSwin(SparseBackbone, SwinBackbone):
    """Base of Swins in which one stage has fast and slow paths."""

    def _run_stage(self, index: int, stage: SwinStage, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return stage(x, hw, self._predictors_of(index), self.selection, self.mixing)

    def _parts_of(self, stage: int) -> Sequence[nn.Module]:
        parts = super()._parts_of(stage)
        return (*parts, self.token_predictors) if stage == self.prune_stage else parts


@MODELS.register_module()
class DynamicSwin(SparseSwin):
    """Swin transformer that runs its MLPs only where the image needs them.

    Args:
        arch: See :class:`SwinBackbone`.
        keep_ratios: Share of positions on the slow path: None or 1.0 for the dense network; a
            tuple with a ratio per predictor; or one number r in (0.4, 1), which means
            (r, r - 0.2, r - 0.4).
        prune_stage: Index of the stage with two paths.
        prune_blocks: Blocks of that stage with a predictor before them; None means
            ``k * max(1, depth // 9)`` for k = 1, 2, 3. Blocks from the first on have two paths.
        selection: 'topk'; dict(type='threshold', threshold=0.5), where the ratios only steer
            the training loss; or 'random', in training too, to compare with: each image keeps
            as many positions as with 'topk', drawn anew each time, and nothing is predicted.
        mixing: How both paths run in training, so that decisions get gradients: 'merged', one map
            as at inference, or 'two_stream', two maps as in the authors' code, which takes more
            time and memory.
        **swin: Every argument of :class:`SwinBackbone`, which are those of the Swin of mmdet,
            mmseg and mmpretrain; ``keep_ratios=None`` makes it that network.

    Raises:
        ValueError: For arguments out of their range; each message names argument, value, rule.
    """

    def __init__(
        self,
        arch: None | str | Mapping = None,
        keep_ratios: KeepRatios = None,
        prune_stage: int = 2,
        prune_blocks: Sequence[int] | None = None,
        selection: str | Mapping = 'topk',
        mixing: str = 'merged',
        **swin,
    ):
        super().__init__(arch, **swin)
        self._setup_sparsity(
            self.depths,
            self.widths,
            keep_ratios,
            prune_stage,
            prune_blocks,
            selection,
            mixing,
            predictor_eps=1e-5,
        )
        self._build_stages()

    def _make_block(self, stage: int, block: int, cfg: dict) -> SwinBlock:
        return SwinBlock(**{'dual_path': self._has_fast_path(stage, block), **cfg})
