"""Patch merging with the norm before the linear layer (Swin) or after it (Swin-V2)."""
from typing import Optional, Tuple

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import transformer
from torch import Tensor


class PatchMerging(transformer.PatchMerging):
    """mmcv's ``PatchMerging`` with one more argument, under the name it has in mmpretrain.

    Args:
        in_channels: Channels C of the map.
        out_channels: Channels C' of the merged map.
        norm_cfg: Norm layer; None for none.
        use_post_norm: Norm after the linear layer instead of before.
        **kwargs: Further arguments of mmcv's.
    """

    def __init__(self, in_channels: int, out_channels: int,
                 norm_cfg: Optional[dict] = dict(type='LN'), use_post_norm: bool = False, **kwargs):
        super().__init__(in_channels, out_channels,
                         norm_cfg=None if use_post_norm else norm_cfg, **kwargs)
        self.use_post_norm = use_post_norm
        if use_post_norm and norm_cfg is not None:
            self.norm = build_norm_layer(norm_cfg, out_channels)[1]

    def forward(self, x: Tensor, input_size: Tuple[int, int]) -> Tuple[Tensor, Tuple[int, int]]:
        """(B, N, C) tokens of an (H, W) map -> (B, N', C') and the merged map's size."""
        if not self.use_post_norm:
            return super().forward(x, input_size)
        x = x.transpose(1, 2).unflatten(2, input_size)
        if self.adaptive_padding is not None:
            x = self.adaptive_padding(x)
        cut = self.sampler
        size = tuple((length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
                     for length, padding, dilation, kernel, stride in zip(
                         x.shape[2:], cut.padding, cut.dilation, cut.kernel_size, cut.stride))
        x = self.reduction(cut(x).transpose(1, 2))
        return (x if self.norm is None else self.norm(x)), size
