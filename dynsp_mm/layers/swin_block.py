"""Swin block, dense or with fast and slow paths."""

import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor

from ..ops import Kernels, dual_path, merge_streams, route_streams
from ..prepared.forms import FoldedPath
from ..sparsity.runner import DualPathBlock, FoldedBlock
from .fast_path import FastPath
from .window_attention import ShiftWindowAttention


class SwinBlock(DualPathBlock):
    """Window attention, then an MLP on slow positions and a linear layer on fast ones.

    Without a decision it is the ordinary Swin block (arXiv 2103.14030); with one it is the
    dual-path block of arXiv 2207.01580 (``AdaSwinTransformerBlock`` of its code). Attention always
    covers the whole map.

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
        norm_cfg: Of norm1 and norm2.
        with_cp: Recompute activations in the backward pass to save memory.
        dual_path: Whether the block has a fast path.
    """

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
        dual_path: bool = False,
    ):
        super().__init__(with_cp)
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
        ffn_cfgs = {
            'feedforward_channels': int(embed_dims * ffn_ratio),
            'ffn_drop': 0.0,
            'act_cfg': dict(type='GELU'),
            **ffn_cfgs,
        }
        # The block adds residual and drop path itself, once for both paths.
        self.ffn = FFN(embed_dims, add_identity=False, **ffn_cfgs)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.dual_path = dual_path
        if dual_path:
            self.fast_path = FastPath(embed_dims, eps=1e-5, drop_rate=ffn_cfgs['ffn_drop'])

    def _attend(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return x + self.drop_path(self.attn(self.norm1(x), hw))

    def _slow_path(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.ffn(self.norm2(x))

    def _fold(self, kernels: Kernels) -> FoldedBlock | None:
        attention = self.attn.fold(kernels, self.norm1)
        slow = FoldedPath.of_ffn(kernels, self.norm2, self.ffn)
        fast = self.fast_path.fold(kernels) if self.dual_path else None
        if attention is None or slow is None or self.dual_path and fast is None:
            return None
        return FoldedBlock(slow, fast, attention)

    def _run_folded_(
        self,
        folded: FoldedBlock,
        x: Tensor,
        hw: tuple[int, int],
        slow: Tensor | None,
        fast: Tensor | None,
    ) -> None:
        tokens = x.view(-1, x.shape[-1])
        folded.attention.add_(tokens, len(x), hw, self.attn.shift(hw))
        folded.slow.add_(tokens, tokens, slow)
        if fast is not None:
            folded.fast.add_(tokens, tokens, fast)

    def _forward_dense(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        x = self._attend(x, hw)
        return x + self.drop_path(self._slow_path(x))

    def _forward_sparse(self, x: Tensor, slow: Tensor, fast: Tensor, hw: tuple[int, int]) -> Tensor:
        x = self._attend(x, hw)
        tokens = x.flatten(0, 1)
        return dual_path(tokens, tokens, slow, fast, self._slow_path, self.fast_path).view_as(x)

    def _forward_merged(self, x: Tensor, mask: Tensor, hw: tuple[int, int]) -> Tensor:
        x = self._attend(x, hw)
        return x + self.drop_path(merge_streams(mask, self._slow_path(x), self.fast_path(x)))

    def _forward_streams(
        self, slow: Tensor, fast: Tensor, mask: Tensor, hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        x = self._attend(merge_streams(mask, slow, fast), hw)
        slow, fast = route_streams(mask, x, slow, fast)
        return (x + self.drop_path(self._slow_path(slow)), x + self.drop_path(self.fast_path(fast)))
