"""Swin block."""

from typing import Any

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor

from ..ops import Backend, Content
from ..prepared import PreparedPath
from .block import Block, PreparedBlock, make_ffn
from .fast_path import FastPath
from .window_attention import ShiftWindowAttention


class SwinBlock(Block):
    """Window attention, then an MLP (arXiv 2103.14030).

    With a fast path it is the dual-path block of arXiv 2207.01580 (``AdaSwinTransformerBlock`` of
    its code). Attention always covers the whole map.

    Args:
        embed_dims: Channels C.
        num_heads: Attention heads.
        window_size: Window side.
        shift: Whether windows are shifted by half a window.
        ffn_ratio: Hidden channels of the MLP / C.
        drop_path: Stochastic depth probability.
        pad_small_map: See :class:`ShiftWindowAttention`.
        attn_cfgs: Further arguments of :class:`ShiftWindowAttention`.
        ffn_cfgs: Further arguments of mmcv's ``FFN``.
        norm_cfg: Norm layers norm1 and norm2.
        with_cp: Whether to recompute activations in the backward pass to save memory.
        fast_path: Whether the block has a fast path.
    """

    locality = 'window'

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 7,
        shift: bool = False,
        ffn_ratio: float = 4.0,
        drop_path: float = 0.0,
        pad_small_map: bool = False,
        attn_cfgs: dict = {},
        ffn_cfgs: dict = {},
        norm_cfg: dict = dict(type='LN'),
        with_cp: bool = False,
        fast_path: bool = False,
    ):
        super().__init__(DropPath(drop_path) if drop_path > 0 else None, with_cp)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = ShiftWindowAttention(
            **{
                'embed_dims': embed_dims,
                'num_heads': num_heads,
                'window_size': window_size,
                'shift_size': window_size // 2 if shift else 0,
                'pad_small_map': pad_small_map,
                **attn_cfgs,
            }
        )
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.ffn = make_ffn(embed_dims, ffn_ratio, ffn_cfgs)
        if fast_path:
            self.fast_path = FastPath(embed_dims, eps=1e-5, drop_rate=ffn_cfgs.get('ffn_drop', 0.0))

    def mix(
        self, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention and its residual; updates are added to the sum."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid, content))
        return x, x

    def mlp(self, tokens: Tensor, rows: Any = None) -> Tensor:
        """``MLP(LN(x))``."""
        return self.ffn(self.norm2(tokens))

    def _prepare(self, backend: Backend) -> PreparedBlock | None:
        attention = self.attn.make_prepared(backend, self.norm1)
        mlp = PreparedPath.of_ffn(backend, self.norm2, self.ffn)
        cheap = self.fast_path and self.fast_path.make_prepared(backend)
        if attention is None or mlp is None or self.fast_path is not None and cheap is None:
            return None
        return PreparedBlock(mlp, cheap, attention)

    def mix_prepared(
        self, form: PreparedBlock, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> Tensor:
        tokens = x.view(-1, x.shape[-1])
        sizes = None if content is None else content.sizes
        form.attention.add_(tokens, len(x), grid, self.attn.shift(grid), sizes)
        return tokens
