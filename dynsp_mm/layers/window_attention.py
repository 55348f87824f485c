"""(Shifted-)window self-attention under the parameter names of the dense libraries."""

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ..ops import (
    Backend,
    Content,
    cyclic_shift_mask,
    fold_scale,
    partition_windows,
    relative_position_index,
    reverse_windows,
    window_attention,
)
from ..prepared import PreparedWindowAttention, pack_after_norm
from .attention import MultiheadAttention


class RelativeWindowAttention(MultiheadAttention):
    """Multi-head self-attention inside windows with relative position bias.

    Subclasses say what the bias is.

    Args:
        embed_dims: Channels C.
        num_heads: Heads h; divides C.
        window_size: Window side w.
        qkv_bias: Whether the qkv projection has a bias.
        **kwargs: For :class:`MultiheadAttention`.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, window_size: int, qkv_bias: bool = True, **kwargs
    ):
        super().__init__(embed_dims, num_heads, **kwargs)
        # Not persistent: derived from the window; dense checkpoints hold it, loading drops it.
        self.register_buffer(
            'relative_position_index', relative_position_index(window_size), persistent=False
        )
        self.qkv = nn.Linear(embed_dims, embed_dims * 3, bias=qkv_bias)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * nW, n, C) windows and an additive (nW, 1, n, n) mask -> (B * nW, n, C)."""
        q, k, v = (
            self.project_in(windows).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        q, k = self.prepare(q, k)
        return self.project(window_attention(q, k, v, self.bias(), mask, self.scale, self.dropout))

    def project_in(self, windows: Tensor) -> Tensor:
        """(B * nW, n, C) -> (B * nW, n, 3C): queries, keys and values."""
        return self.qkv(windows)

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to queries and keys, (B * nW, h, n, C / h) each, before they meet."""
        return q, k

    def position_bias(self) -> Tensor:
        """((2w - 1)^2, h): the bias for each offset between two positions."""
        raise NotImplementedError

    def bias(self) -> Tensor:
        """(h, n, n): the bias of each pair of positions."""
        return self.position_bias()[self.relative_position_index].permute(2, 0, 1)

    def make_prepared(
        self, backend: Backend, norm: nn.Module, window_size: int
    ) -> PreparedWindowAttention | None:
        """The prepared form of this attention after ``norm``; None where there is none."""
        return None


class WindowAttention(RelativeWindowAttention):
    """The attention of Swin (arXiv 2103.14030): the bias is a learned table.

    Args:
        embed_dims: Channels C.
        num_heads: Heads h; divides C.
        window_size: Window side w.
        **kwargs: For :class:`RelativeWindowAttention`.
    """

    def __init__(self, embed_dims: int, num_heads: int, window_size: int, **kwargs):
        super().__init__(embed_dims, num_heads, window_size, **kwargs)
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window_size - 1) ** 2, num_heads)
        )

    def init_weights(self) -> None:
        super().init_weights()
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def position_bias(self) -> Tensor:
        return self.relative_position_bias_table

    def make_prepared(
        self, backend: Backend, norm: nn.Module, window_size: int
    ) -> PreparedWindowAttention | None:
        C = self.qkv.in_features
        scale = self.qkv.weight.new_ones(3 * C)
        scale[:C] = self.scale
        weight, bias = fold_scale(scale, self.qkv.weight, self.qkv.bias)
        qkv = pack_after_norm(backend, norm, weight, bias)
        if qkv is None:
            return None
        padding = weight.new_zeros(3 * C) if bias is None else bias
        return PreparedWindowAttention(
            backend,
            norm.eps,
            qkv,
            padding,
            self.bias().unsqueeze(0).contiguous(),
            backend.pack(self.proj.weight, self.proj.bias),
            window_size,
        )


class ShiftWindowAttention(BaseModule):
    """Window attention over a whole map of any size.

    Args:
        embed_dims: Channels C.
        num_heads: Heads.
        window_size: Window side w.
        shift_size: Cyclic shift, 0 <= shift < w.
        pad_small_map: False drops the shift on maps whose shorter side is no larger than the
            window (mmpretrain, the release); True keeps it (mmdet, mmseg). Maps smaller than
            a window are padded either way.
        attention: Class of the attention inside windows.
        **kwargs: For that class.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int,
        shift_size: int = 0,
        pad_small_map: bool = False,
        attention: type[RelativeWindowAttention] = WindowAttention,
        **kwargs,
    ):
        super().__init__()
        self.window_size = window_size
        self.shift_size = shift_size
        self.pad_small_map = pad_small_map
        self.w_msa = attention(embed_dims, num_heads, window_size, **kwargs)

    def shift(self, hw: tuple[int, int]) -> int:
        """The cyclic shift on an (H, W) map."""
        small = min(hw) <= self.window_size
        return 0 if small and not self.pad_small_map else self.shift_size

    def make_prepared(self, backend: Backend, norm: nn.Module) -> PreparedWindowAttention | None:
        """The prepared form of this attention after ``norm``; None where there is none."""
        return self.w_msa.make_prepared(backend, norm, self.window_size)

    def forward(
        self, tokens: Tensor, hw: tuple[int, int], content: Content | None = None
    ) -> Tensor:
        """(B, N, C) tokens of an (H, W) map -> (B, N, C).

        Positions outside the content are to the others what windows are padded with: zeros.
        """
        B, N, C = tokens.shape
        shift, mask, sizes = self.shift(hw), None, None
        if content is not None:
            tokens, sizes = content.clear(tokens), content.sizes
        if shift:
            mask = cyclic_shift_mask(hw, self.window_size, shift, tokens.device, sizes=sizes)
        windows = partition_windows(tokens.view(B, *hw, C), self.window_size, shift)
        x = reverse_windows(self.w_msa(windows, mask), self.window_size, shift, hw)
        return x.reshape(B, N, C)
