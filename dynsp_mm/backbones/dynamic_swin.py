"""Swin with fast and slow paths (arXiv 2207.01580; public code raoyongming/DynamicViT)."""

from collections.abc import Mapping

from mmengine.registry import MODELS

from ..sparsity.plan import KeepRatios
from .swin_backbone import SwinBackbone


@MODELS.register_module()
class DynamicSwin(SwinBackbone):
    """Swin transformer that runs its MLPs only where the image needs them.

    It is a drop-in for the Swin of mmdet, mmseg and mmpretrain; ``keep_ratios=None`` makes it that
    network.

    Args:
        arch: See :class:`SwinBackbone`.
        keep_ratios: Share of positions on the slow path: None or 1.0 for the dense network; a
            tuple with a ratio for each predictor; or one number r in (0.4, 1), which means
            (r, r - 0.2, r - 0.4).
        **arguments: The other arguments of :class:`SwinBackbone`, which are those of the Swin of
            the libraries, and of :meth:`~dynsp_mm.sparsity.SparsityPlan.parse`: ``prune_stage``,
            ``prune_blocks``, ``selection``, ``mixing``, ``unit``.

    Raises:
        UserError: For arguments out of their range; each message names argument, value, rule.
    """

    def __init__(
        self, arch: None | str | Mapping = None, keep_ratios: KeepRatios = None, **arguments
    ):
        super().__init__(arch, keep_ratios=keep_ratios, **arguments)
