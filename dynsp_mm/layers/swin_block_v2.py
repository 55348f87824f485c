"""Swin-V2 block."""

from typing import Any

import torch.nn as nn
from mmcv.cnn import build_norm_layer
from torch import Tensor

from ..ops import Backend, Content
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
        norm_cfg: Norm layers.
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

    def mix(
        self, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention, its norm and the residual; updates are added to the sum."""
        x = x + self.drop_path(self.norm1(self.attn(x, grid, content)))
        return x, x

    def mlp(self, tokens: Tensor, rows: Any = None) -> Tensor:
        """``LN(MLP(x))``."""
        return self.norm2(self.ffn(tokens))

    def finish(self, x: Tensor) -> Tensor:
        """The extra norm, on both paths."""
        return self.norm3(x)

    def _prepare(self, backend: Backend) -> None:
        """None: norms come after the layers that those of Swin are folded into."""
