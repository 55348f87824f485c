"""Swin-V2 with fast and slow paths in one stage, a drop-in for mmpretrain's ``SwinTransformerV2``.

The paths are those of arXiv 2207.01580, which has them for Swin; the network is that of
arXiv 2111.09883.
"""

from collections.abc import Mapping, Sequence

from mmengine.registry import MODELS

from ..errors import check_counts
from ..layers import SwinBlockV2
from ..sparsity.plan import KeepRatios
from .base import refuse_unknown
from .swin_backbone import SwinBackbone, per_stage

# What other Swins take and this one does not.
UNKNOWN = (
    'convert_weights',
    'depths',
    'embed_dims',
    'num_heads',
    'out_after_downsample',
    'qk_scale',
)


@MODELS.register_module()
class DynamicSwinV2(SwinBackbone):
    """Swin-V2 that runs its MLPs only where the image needs them.

    ``keep_ratios=None`` makes it mmpretrain's ``SwinTransformerV2``, whose arguments it takes and
    whose checkpoints load as they are. There is no published sparse form and there are no published
    sparse weights; :class:`SwinBlockV2` says what was chosen.

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'huge', 'giant' (or the first letter), or a dict
            with ``embed_dims``, ``depths``, ``num_heads`` and ``extra_norm_every_n_blocks``
            (0 for no extra norms).
        keep_ratios: See :class:`DynamicSwin`.
        img_size: Image side of the pretraining, sizes the position embedding.
        window_size: Attention window side, or one for each stage.
        pretrained_window_sizes: Window side of the pretraining, or one for each stage; 0 means
            that of ``window_size``. No weight depends on windows, so nothing is interpolated.
        **arguments: Further arguments of :class:`DynamicSwin` but for those in :data:`UNKNOWN`.
            ``stage_cfgs`` may hold ``extra_norm_every_n_blocks`` and ``pretrained_window_size``
            too; patch merging belongs to the stage after it, and a ``downsample_cfg`` needs
            ``use_post_norm=True`` of its own.

    Raises:
        UserError: For arguments out of their range; each message names argument, value, rule.
    """

    STAGE_KEYS = (*SwinBackbone.STAGE_KEYS, 'extra_norm_every_n_blocks', 'pretrained_window_size')
    MERGES_FIRST = True
    DOWNSAMPLE_CFG = dict(use_post_norm=True)

    def __init__(
        self,
        arch: str | Mapping = 'tiny',
        keep_ratios: KeepRatios = None,
        img_size: int | Sequence[int] = 256,
        window_size: int | Sequence[int] = 8,
        pretrained_window_sizes: int | Sequence[int] = 0,
        **arguments,
    ):
        refuse_unknown(type(self), {k: arguments[k] for k in UNKNOWN if k in arguments})
        arch = self._resolve_arch(arch, {})
        every = arch['extra_norm_every_n_blocks']
        check_counts(0, extra_norm_every_n_blocks=every)
        pretrained = per_stage(
            'pretrained_window_sizes', pretrained_window_sizes, len(arch['depths']), least=0
        )

        def make_block(stage: int, block: int, cfg: dict) -> SwinBlockV2:
            period = cfg.pop('extra_norm_every_n_blocks', every)
            return SwinBlockV2(
                **{
                    'extra_norm': period > 0 and (block + 1) % period == 0,
                    'pretrained_window_size': pretrained[stage],
                    **cfg,
                }
            )

        super().__init__(
            arch,
            img_size=img_size,
            window_size=window_size,
            make_block=make_block,
            keep_ratios=keep_ratios,
            **arguments,
        )
