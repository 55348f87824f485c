"""Convolutional patch embedding of STViT-R."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import to_2tuple
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from ..ops import Backend
from ..prepared import Preparable


class ConvStem(Preparable, BaseModule):
    """Two 3x3 convolutions of stride 2, each with batch norm and Hardswish (arXiv 2303.08685).

    Args:
        in_channels: Image channels.
        embed_dims: Output channels C, even; the first convolution has C / 2.
        input_size: Image side, or (height, width), of the pretraining; for ``init_out_size``.
        norm_cfg: Norm layers.
        act_cfg: Activations.

    Attributes:
        init_out_size: Size of the map of an image of ``input_size``.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        input_size=224,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='HSwish'),
    ):
        super().__init__()
        if embed_dims % 2:
            raise UserError(
                f'embed_dims={embed_dims}: the stem begins with half as many '
                'channels, so it must be even'
            )
        self.init_out_size = tuple(-(-side // 4) for side in to_2tuple(input_size))
        common = dict(kernel_size=3, stride=2, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.layers = nn.Sequential(
            ConvModule(in_channels, embed_dims // 2, **common),
            ConvModule(embed_dims // 2, embed_dims, **common),
        )

    def _prepare(self, backend: Backend) -> nn.Sequential | None:
        """The convolutions with the batch norms in them."""
        if any(type(layer.norm) is not nn.BatchNorm2d for layer in self.layers):
            return None
        return nn.Sequential(
            *(
                module
                for layer in self.layers
                for module in (fuse_conv_bn_eval(layer.conv, layer.norm), layer.activate)
            )
        ).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor):
        """(B, in_channels, H, W) -> (B, N, C) tokens and the map's size (ceil(H/4), ceil(W/4))."""
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        prepared = self.prepared
        if prepared is None:
            x = self.layers(x)
        else:
            # Tokens are the memory of a channels-last map.
            x = prepared(x.contiguous(memory_format=torch.channels_last))
        return x.flatten(2).transpose(1, 2), x.shape[2:]
