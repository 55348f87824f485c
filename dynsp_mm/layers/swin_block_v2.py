"""Swin-V2 block, dense or with fast and slow paths."""

import torch.nn as nn
from mmcv.cnn import build_norm_layer
from torch import Tensor

from ..ops import Kernels
from ..sparsity.predictors import Decision
from ..sparsity.runner import Streams
from .swin_block import SwinBlock
from .window_attention_v2 import WindowAttentionV2


class SwinBlockV2(SwinBlock):
    """A :class:`SwinBlock` with scaled cosine attention and norms at the ends of its branches.

    Without a decision it is the block of arXiv 2111.09883, with one the dual-path block made
    from it, of which there is no published form: the slow path is ``norm2(MLP(x))``, the fast
    path that of Swin, ``W LN(x) + b``. So a fast path starts small beside a stream whose values
    grow from block to block; with its norm last it would start as large as a trained branch.

    Stochastic depth drops whole branches, norms included, as in the paper's code. mmpretrain
    drops before the norm, which undoes the scaling of the samples that are kept.

    Args:
        embed_dims: Channels C.
        num_heads: Attention heads.
        window_size: Window side.
        attn_cfgs: Further arguments of :class:`WindowAttentionV2`.
        norm_cfg: Of the norms.
        extra_norm: Whether the block's output, on both paths, is normalised too.
        pretrained_window_size: See :class:`WindowAttentionV2`.
        **kwargs: Further arguments of :class:`SwinBlock`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 8,
        attn_cfgs: dict = {},
        norm_cfg: dict = dict(type='LN'),
        extra_norm: bool = False,
        pretrained_window_size: int = 0,
        **kwargs,
    ):
        super().__init__(
            embed_dims,
            num_heads,
            window_size,
            norm_cfg=norm_cfg,
            attn_cfgs={
                'attention': WindowAttentionV2,
                'pretrained_window_size': pretrained_window_size,
                **attn_cfgs,
            },
            **kwargs,
        )
        self.norm3 = build_norm_layer(norm_cfg, embed_dims)[1] if extra_norm else nn.Identity()

    def forward(
        self, x: Tensor | Streams, hw: tuple[int, int], decision: Decision | None = None
    ) -> Tensor | Streams:
        """As of :class:`DualPathBlock`."""
        x = super().forward(x, hw, decision)
        return Streams(*map(self.norm3, x)) if isinstance(x, Streams) else self.norm3(x)

    def _fold(self, kernels: Kernels) -> None:
        """None: its norms come after the layers that those of Swin are folded into."""
        return

    def _attend(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return x + self.drop_path(self.norm1(self.attn(x, hw)))

    def _slow_path(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.norm2(self.ffn(x))
