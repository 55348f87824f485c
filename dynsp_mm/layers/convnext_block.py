"""ConvNeXt block, dense or with fast and slow paths, on channels-last tokens."""

import torch
import torch.nn as nn
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor

from ..compat import is_watched
from ..ops import Kernels, dual_path, merge_streams, route_streams
from ..prepared.forms import FoldedPath, is_exact_gelu
from ..sparsity.runner import DualPathBlock, FoldedBlock
from .fast_path import FastPath
from .norms import GRN


class ConvNeXtBlock(DualPathBlock):
    """7x7 depthwise convolution, then an MLP on slow and a linear layer on fast positions.

    Without a decision it is the ordinary ConvNeXt block (arXiv 2201.03545); with one it is the
    dual-path block of arXiv 2207.01580 (``AdaBlock`` of its code). The convolution always covers
    the whole map. With GRN (ConvNeXt-V2) the channel energies of the slow path are taken over the
    slow positions of each image; the fast path has none.

    Args:
        channels: Channels C.
        eps: Of the layer norms.
        act_cfg: Activation of the MLP.
        drop_path: Stochastic depth probability.
        layer_scale_init_value: Initial layer scale of each path; 0 means none.
        use_grn: Whether the MLP has a GRN after its activation.
        with_cp: Recompute activations in the backward pass to save memory.
        dual_path: Whether the block has a fast path.
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
        dual_path: bool = False,
    ):
        super().__init__(with_cp)
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.act = build_activation_layer(act_cfg)
        self.grn = GRN(4 * channels) if use_grn else None
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.gamma = self._layer_scale(channels, layer_scale_init_value)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.dual_path = dual_path
        if dual_path:
            self.fast_path = FastPath(channels, eps=eps)
            self.fast_gamma = self._layer_scale(channels, layer_scale_init_value)

    @staticmethod
    def _layer_scale(channels: int, value: float) -> nn.Parameter | None:
        return nn.Parameter(torch.full((channels,), float(value))) if value > 0 else None

    def _convolve(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        # Both views are free: tokens are the memory of a channels-last map.
        B, N, C = x.shape
        x = self.depthwise_conv(x.view(B, *hw, C).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).reshape(B, N, C)

    def _slow_path(self, x: Tensor, **grn_args) -> Tensor:
        x = self.act(self.pointwise_conv1(self.norm(x)))
        if self.grn is not None:
            x = self.grn(x, **grn_args)
        x = self.pointwise_conv2(x)
        return x if self.gamma is None else x * self.gamma

    def _scaled_fast_path(self, x: Tensor) -> Tensor:
        x = self.fast_path(x)
        return x if self.fast_gamma is None else x * self.fast_gamma

    def _fold(self, kernels: Kernels) -> FoldedBlock | None:
        if self.grn is not None or not is_exact_gelu(self.act):
            return None
        slow = FoldedPath.of(
            kernels, self.norm, self.pointwise_conv1, self.pointwise_conv2, scale=self.gamma
        )
        fast = self.fast_path.fold(kernels, self.fast_gamma) if self.dual_path else None
        if slow is None or self.dual_path and fast is None:
            return None
        return FoldedBlock(slow, fast)

    def _run_folded_(
        self,
        folded: FoldedBlock,
        x: Tensor,
        hw: tuple[int, int],
        slow: Tensor | None,
        fast: Tensor | None,
    ) -> None:
        # Its hooks may hold what it sees.
        seen = x.clone() if is_watched(self.depthwise_conv) else x
        tokens, out = self._convolve(seen, hw).flatten(0, 1), x.view(-1, x.shape[-1])
        folded.slow.add_(out, tokens, slow)
        if fast is not None:
            folded.fast.add_(out, tokens, fast)

    def _forward_dense(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return x + self.drop_path(self._slow_path(self._convolve(x, hw)))

    def _forward_sparse(self, x: Tensor, slow: Tensor, fast: Tensor, hw: tuple[int, int]) -> Tensor:
        B, N, _ = x.shape

        def slow_path(tokens: Tensor, rows: Tensor) -> Tensor:
            return self._slow_path(tokens, image=rows // N, num_images=B)

        tokens = self._convolve(x, hw).flatten(0, 1)
        return dual_path(
            tokens, x.flatten(0, 1), slow, fast, slow_path, self._scaled_fast_path
        ).view_as(x)

    def _forward_merged(self, x: Tensor, mask: Tensor, hw: tuple[int, int]) -> Tensor:
        tokens = self._convolve(x, hw)
        return x + self.drop_path(
            merge_streams(
                mask, self._slow_path(tokens, weight=mask), self._scaled_fast_path(tokens)
            )
        )

    def _forward_streams(
        self, slow: Tensor, fast: Tensor, mask: Tensor, hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        merged = self._convolve(merge_streams(mask, slow, fast), hw)
        slow_in, fast_in = route_streams(mask, merged, slow, fast)
        return (
            slow + self.drop_path(self._slow_path(slow_in, weight=mask)),
            fast + self.drop_path(self._scaled_fast_path(fast_in)),
        )
