"""Norms whose names the dense libraries use in configs (``LN2d``) and checkpoints (``grn``)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a (B, C, H, W) map."""

    def forward(self, x: Tensor, average: bool = False) -> Tensor:
        """(B, C, H, W) -> the same, or with ``average`` -> (B, C, 1, 1), the mean's norm."""
        if average:
            x = x.mean((2, 3), keepdim=True)
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


class GRN(nn.Module):
    """Global response normalisation on tokens (ConvNeXt-V2, arXiv 2301.00808).

    Channel energies are summed over the tokens of an image that are given: all of them in a
    dense block, the slow ones in the slow path of a dual-path block.

    Args:
        channels: Channels C.
        eps: Added to the mean energy.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(
        self,
        tokens: Tensor,
        image: Tensor | None = None,
        num_images: int = 0,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Normalises.

        Args:
            tokens: (B, N, C) whole maps, or (K, C) tokens of several images.
            image: (K,) int64, the image of each token; only with (K, C).
            num_images: Number B of images; only with (K, C).
            weight: (B, N, 1) in [0, 1], tokens that count; only with (B, N, C).
        """
        square = tokens.float().square()
        if image is None:
            energy = (square if weight is None else square * weight).sum(1, keepdim=True)
        else:
            energy = square.new_zeros(num_images, square.shape[1]).index_add(0, image, square)
        # The gradient of the root is infinite at 0: an image without a counted token.
        norm = energy.clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        response = norm / (norm.mean(-1, keepdim=True) + self.eps)
        if image is not None:
            response = response.index_select(0, image)
        return tokens + self.beta + self.gamma * tokens * response.to(tokens.dtype)
