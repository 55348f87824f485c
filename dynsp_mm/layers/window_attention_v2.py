"""Window attention of Swin-V2 (arXiv 2111.09883) under the parameter names of mmpretrain."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops import log_offsets
from .window_attention import RelativeWindowAttention

MAX_SCALE = 100.0


class WindowAttentionV2(RelativeWindowAttention):
    """Scaled cosine attention; the position bias is a small network of the offsets.

    Args:
        embed_dims: Channels C.
        num_heads: Heads h; divides C.
        window_size: Window side w.
        qkv_bias: Whether queries and values have a bias. Keys have none.
        attn_drop: Dropout on attention weights.
        proj_drop: Dropout on the output.
        cpb_mlp_hidden_dims: Hidden channels of the network.
        pretrained_window_size: Window side of the pretraining, which gives offsets their unit; 0
            means ``window_size``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        cpb_mlp_hidden_dims: int = 512,
        pretrained_window_size: int = 0,
    ):
        # The scale is learned and lies in the queries.
        super().__init__(
            embed_dims,
            num_heads,
            window_size,
            qkv_bias=False,
            qk_scale=1.0,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
        )
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, cpb_mlp_hidden_dims),
            nn.ReLU(),
            nn.Linear(cpb_mlp_hidden_dims, num_heads, bias=False),
        )
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        # Derived, as the index is.
        self.register_buffer(
            'relative_coords_table',
            log_offsets(window_size, pretrained_window_size),
            persistent=False,
        )
        self.q_bias = nn.Parameter(torch.zeros(embed_dims)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(embed_dims)) if qkv_bias else None

    def project_in(self, windows: Tensor) -> Tensor:
        bias = None
        if self.q_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return F.linear(windows, self.qkv.weight, bias)

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # Keys of padding are zeros, and the usual epsilon is zero in float16.
        eps = max(1e-12, torch.finfo(q.dtype).tiny)
        scale = self.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
        # Under autocast both become float32.
        return (
            (F.normalize(q, dim=-1, eps=eps) * scale).to(q.dtype),
            F.normalize(k, dim=-1, eps=eps).to(k.dtype),
        )

    def position_bias(self) -> Tensor:
        return 16 * self.cpb_mlp(self.relative_coords_table).sigmoid()
