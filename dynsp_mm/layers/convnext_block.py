"""ConvNeXt block on channels-last tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor

from ..compat import is_watched
from ..ops import Backend, Content
from ..prepared import PreparedPath, is_exact_gelu
from .block import Block, PreparedBlock
from .fast_path import FastPath
from .norms import GRN


class ConvNeXtBlock(Block):
    """7x7 depthwise convolution, then an MLP (arXiv 2201.03545).

    With a fast path it is the dual-path block of arXiv 2207.01580 (``AdaBlock`` of its code). The
    convolution always covers the whole map. With GRN (ConvNeXt-V2) the channel energies of the MLP
    are taken over its own positions of each image; the fast path has none.

    Args:
        channels: Channels C.
        eps: Epsilon of the layer norms.
        act_cfg: Activation of the MLP.
        drop_path: Stochastic depth probability.
        layer_scale_init_value: Initial layer scale of each path; 0 means none.
        use_grn: Whether the MLP has a GRN after its activation.
        with_cp: Whether to recompute activations in the backward pass to save memory.
        fast_path: Whether the block has a fast path.
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-6,
        act_cfg: dict = dict(type='GELU'),
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_grn: bool = False,
        with_cp: bool = False,
        fast_path: bool = False,
    ):
        super().__init__(DropPath(drop_path) if drop_path > 0 else None, with_cp)
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.act = build_activation_layer(act_cfg)
        self.grn = GRN(4 * channels) if use_grn else None
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.gamma = self._layer_scale(channels, layer_scale_init_value)
        if fast_path:
            self.fast_path = FastPath(channels, eps=eps)
            self.fast_gamma = self._layer_scale(channels, layer_scale_init_value)

    @staticmethod
    def _layer_scale(channels: int, value: float) -> nn.Parameter | None:
        return nn.Parameter(torch.full((channels,), float(value))) if value > 0 else None

    def mix(
        self, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> tuple[Tensor, None]:
        """The convolution; updates are added to the block's input."""
        if content is not None:  # the convolution pads with zeros
            x = content.clear(x)
        return self._convolve(x, grid, self.depthwise_conv), None

    @staticmethod
    def _convolve(x: Tensor, grid: tuple[int, int], conv: Callable[[Tensor], Tensor]) -> Tensor:
        # Both views are free: tokens are the memory of a channels-last map.
        B, N, C = x.shape
        tokens = conv(x.view(B, *grid, C).permute(0, 3, 1, 2))
        return tokens.permute(0, 2, 3, 1).reshape(B, N, C)

    def mlp(self, tokens: Tensor, rows: Any = None) -> Tensor:
        """``gamma * W2 GELU(W1 LN(x))``, with GRN after the activation."""
        x = self.act(self.pointwise_conv1(self.norm(tokens)))
        if self.grn is not None:
            x = self.grn(x) if rows is None else self.grn(x, rows.image, rows.batch, rows.weight)
        x = self.pointwise_conv2(x)
        return x if self.gamma is None else x * self.gamma

    def cheap(self, tokens: Tensor) -> Tensor:
        """``fast_gamma * (W LN(x) + b)``."""
        x = self.fast_path(tokens)
        return x if self.fast_gamma is None else x * self.fast_gamma

    def _prepare(self, backend: Backend) -> PreparedBlock | None:
        if self.grn is not None or not is_exact_gelu(self.act):
            return None
        mlp = PreparedPath.of(
            backend, self.norm, self.pointwise_conv1, self.pointwise_conv2, scale=self.gamma
        )
        cheap = self.fast_path and self.fast_path.make_prepared(backend, self.fast_gamma)
        if mlp is None or self.fast_path is not None and cheap is None:
            return None
        return PreparedBlock(mlp, cheap)

    def mix_prepared(
        self, form: PreparedBlock, x: Tensor, grid: tuple[int, int], content: Content | None = None
    ) -> Tensor:
        if content is not None:
            x.masked_fill_(~content.mask.unsqueeze(-1), 0)
        # Hooks of the convolution may hold what it sees, and x is written over.
        seen = x.clone() if is_watched(self.depthwise_conv) else x
        convolve = partial(form.mlp.backend.convolve, self.depthwise_conv)
        return self._convolve(seen, grid, convolve).flatten(0, 1)
