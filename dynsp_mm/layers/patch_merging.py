"""Patch merging with the norm before the linear layer (Swin) or after it (Swin-V2)."""

from typing import NamedTuple

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import transformer
from torch import Tensor

from ..ops import Backend, Packed, pieces
from ..prepared import Preparable, pack_after_norm


class PreparedMerging(NamedTuple):
    """Norm and linear layer of 2x2 patches whose channels lie together, position by position."""

    backend: Backend
    eps: float
    layer: Packed

    def __call__(self, x: Tensor, hw: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """As of :class:`PatchMerging`."""
        x = x.unflatten(1, hw)
        x = F.pad(x, (0, 0, 0, hw[1] % 2, 0, hw[0] % 2))
        B, H, W, C = x.shape
        rows = x.view(B, H // 2, 2, W // 2, 2, C).transpose(2, 3).reshape(-1, 4 * C)
        out = rows.new_empty(len(rows), self.layer.weight.shape[0])
        for piece in pieces(len(rows), self.backend.chunk):
            normed = self.backend.gather_norm(rows[piece], None, self.eps)
            out[piece] = self.backend.linear(normed, self.layer)
        return out.view(B, -1, out.shape[1]), (H // 2, W // 2)


class PatchMerging(Preparable, transformer.PatchMerging):
    """mmcv's ``PatchMerging`` with one more argument, under the name it has in mmpretrain.

    Args:
        in_channels: Channels C of the map.
        out_channels: Channels C' of the merged map.
        norm_cfg: Norm layer; None for none.
        use_post_norm: Norm after the linear layer instead of before.
        **kwargs: Further arguments of mmcv's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm_cfg: dict | None = dict(type='LN'),
        use_post_norm: bool = False,
        **kwargs,
    ):
        super().__init__(
            in_channels, out_channels, norm_cfg=None if use_post_norm else norm_cfg, **kwargs
        )
        self.use_post_norm = use_post_norm
        if use_post_norm and norm_cfg is not None:
            self.norm = build_norm_layer(norm_cfg, out_channels)[1]

    def _prepare(self, backend: Backend) -> PreparedMerging | None:
        cut = self.sampler
        if (
            self.use_post_norm
            or self.adaptive_padding is None
            or self.adaptive_padding.padding != 'corner'
            or tuple(cut.kernel_size) != (2, 2)
            or tuple(cut.stride) != (2, 2)
            or tuple(cut.dilation) != (1, 1)
        ):
            return None

        def by_position(x: Tensor) -> Tensor:
            # The unfolding of mmcv has the four positions of a channel side by side.
            return x.unflatten(-1, (-1, 4)).transpose(-1, -2).flatten(-2)

        layer = pack_after_norm(
            backend, self.norm, self.reduction.weight, self.reduction.bias, by_position
        )
        return None if layer is None else PreparedMerging(backend, self.norm.eps, layer)

    def forward(self, x: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """(B, N, C) tokens of an (H, W) map -> (B, N', C') and the merged map's size."""
        prepared = self.prepared
        if prepared is not None:
            return prepared(x, input_size)
        if not self.use_post_norm:
            return super().forward(x, input_size)
        x = x.transpose(1, 2).unflatten(2, input_size)
        if self.adaptive_padding is not None:
            x = self.adaptive_padding(x)
        cut = self.sampler
        size = tuple(
            (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for length, padding, dilation, kernel, stride in zip(
                x.shape[2:], cut.padding, cut.dilation, cut.kernel_size, cut.stride
            )
        )
        x = self.reduction(cut(x).transpose(1, 2))
        return (x if self.norm is None else self.norm(x)), size
