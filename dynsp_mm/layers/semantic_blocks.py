"""Blocks in which semantic tokens and image tokens attend to each other.

They are those of STViT-R (arXiv 2303.08685; ``SemanticAttentionBlock``, ``Block`` and
``RestoreBlock`` of its code).

All take and return maps (B, H, W, C). A map of semantic tokens has ``side`` x ``side`` tokens for
each window of the image map, in raster order of the whole map.
"""

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint as cp
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor

from ..ops import (
    Backend,
    Packed,
    attention_weights,
    cut_inner_neighbourhoods,
    fold_scale,
    inner_starts,
    neighbourhood_attention,
    neighbourhood_mask,
    neighbourhood_span,
    partition_windows,
    reverse_windows,
    spread_weights,
)
from ..prepared import Preparable, PreparedPath, pack_after_norm
from .attention import MultiheadAttention
from .block import make_ffn


class CrossAttention(MultiheadAttention):
    """Attention with queries of their own.

    Args:
        embed_dims: Channels C.
        num_heads: Heads h; divides C.
        qkv_bias: Whether ``q`` and ``kv`` have a bias.
        **kwargs: For :class:`MultiheadAttention`.
    """

    def __init__(self, embed_dims: int, num_heads: int, qkv_bias: bool = True, **kwargs):
        super().__init__(embed_dims, num_heads, **kwargs)
        self.q = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.kv = nn.Linear(embed_dims, embed_dims * 2, bias=qkv_bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, h, N, C / h)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, kv: Tensor) -> Tensor:
        """(B, N, C) queries and (B, M, 2C) keys and values, projected -> (B, N, C)."""
        k, v = (self.split_heads(x) for x in kv.chunk(2, -1))
        x = F.scaled_dot_product_attention(
            self.split_heads(q), k, v, dropout_p=self.dropout, scale=self.scale
        )
        return x.transpose(1, 2).flatten(2)

    def weights(self, q: Tensor, kv: Tensor) -> Tensor:
        """The weights of :meth:`attend`, averaged over heads, (B, N, M) float32."""
        return attention_weights(
            self.split_heads(q), self.split_heads(kv.chunk(2, -1)[0]), self.scale
        )


class PreparedSemanticBlock(NamedTuple):
    """The linear layers of a block with the norms before and the scales after them."""

    backend: Backend
    eps: float
    q: Packed
    kv: Packed
    proj: Packed
    mlp: PreparedPath

    def normalise(self, x: Tensor) -> Tensor:
        return self.backend.gather_norm(x.flatten(0, -2), None, self.eps).view_as(x)

    def linear(self, x: Tensor, layer: Packed) -> Tensor:
        return self.backend.linear(x.flatten(0, -2), layer).unflatten(0, x.shape[:-1])


class SemanticBlock(Preparable, BaseModule):
    """Base: norms, attention, MLP, and a scale per channel on both residual branches.

    Args:
        embed_dims: Channels C.
        num_heads: Attention heads.
        role: What the block does in its group, for those who look at it.
        layer_scale_init_value: Start of the scales.
        ffn_ratio: Hidden channels of the MLP / C.
        drop_path: Stochastic depth probability.
        attn_cfgs: Further arguments of :class:`CrossAttention`.
        ffn_cfgs: Further arguments of mmcv's ``FFN``.
        norm_cfg: Norm layers norm1 (queries and keys) and norm2.
        with_cp: Whether to recompute activations in the backward pass to save memory.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        role: str = '',
        layer_scale_init_value: float = 1e-5,
        ffn_ratio: float = 4.0,
        drop_path: float = 0.0,
        attn_cfgs: dict = {},
        ffn_cfgs: dict = {},
        norm_cfg: dict = dict(type='LN'),
        with_cp: bool = False,
    ):
        super().__init__()
        self.role = role
        self.with_cp = with_cp
        self.layer_scale_1 = nn.Parameter(torch.full((embed_dims,), layer_scale_init_value))
        self.layer_scale_2 = nn.Parameter(torch.full((embed_dims,), layer_scale_init_value))
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = CrossAttention(embed_dims, num_heads, **attn_cfgs)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.ffn = make_ffn(embed_dims, ffn_ratio, ffn_cfgs)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, *args) -> Tensor:
        """(B, H, W, C) queries, further arguments of the class -> (B, H, W, C)."""
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._forward, x, *args, use_reentrant=False)
        return self._forward(x, *args)

    def _forward(self, x: Tensor, *args) -> Tensor:
        raise NotImplementedError

    def attention(self, x: Tensor, *args) -> Tensor:
        """Weights that :meth:`forward` gives the positions of its last key map.

        Returns:
            (B, H, W, H', W') float32, averaged over heads; what goes to other keys is left out.
        """
        raise NotImplementedError

    # What follows takes (..., C), in the prepared form where there is one.
    def _prepare(self, backend: Backend) -> PreparedSemanticBlock | None:
        attn, norm = self.attn, self.norm1
        q = pack_after_norm(backend, norm, attn.q.weight, attn.q.bias)
        mlp = PreparedPath.of_ffn(backend, self.norm2, self.ffn, self.layer_scale_2)
        if q is None or mlp is None:
            return None
        proj = fold_scale(self.layer_scale_1, attn.proj.weight, attn.proj.bias)
        return PreparedSemanticBlock(
            backend,
            norm.eps,
            q,
            pack_after_norm(backend, norm, attn.kv.weight, attn.kv.bias),
            backend.pack(*proj),
            mlp,
        )

    def _normalise(self, x: Tensor) -> Tensor:
        prepared = self.prepared
        return self.norm1(x) if prepared is None else prepared.normalise(x)

    def _q(self, normed: Tensor) -> Tensor:
        prepared = self.prepared
        return self.attn.q(normed) if prepared is None else prepared.linear(normed, prepared.q)

    def _kv(self, normed: Tensor) -> Tensor:
        """(..., C) -> (..., 2C)."""
        prepared = self.prepared
        return self.attn.kv(normed) if prepared is None else prepared.linear(normed, prepared.kv)

    def _project(self, attended: Tensor) -> Tensor:
        """Output projection and scale."""
        prepared = self.prepared
        if prepared is None:
            return self.layer_scale_1 * self.attn.project(attended)
        return prepared.linear(attended, prepared.proj)

    def _feed_forward(self, x: Tensor) -> Tensor:
        prepared = self.prepared
        if prepared is None:
            return x + self.drop_path(self.layer_scale_2 * self.ffn(self.norm2(x)))
        x = x.contiguous()
        tokens = x.view(-1, x.shape[-1])
        prepared.mlp.add_(tokens, tokens)  # nobody else has this x
        return x

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        return self._feed_forward(x + self.drop_path(self._project(attended)))


class NeighbourhoodBlock(SemanticBlock):
    """The queries of a window attend to the neighbourhood of that window in another map.

    Args:
        query_window: Window side on the query map.
        key_window: Side of the same window on the key map.
        reach: Side of its neighbourhood on the key map.
        **kwargs: For :class:`SemanticBlock`.
    """

    def __init__(self, query_window: int, key_window: int, reach: int, **kwargs):
        super().__init__(**kwargs)
        self.query_window = query_window
        self.key_window = key_window
        self.reach = reach

    def _attend(
        self, x: Tensor, keys: Tensor, corner: tuple[int, int] | None, weights: bool
    ) -> Tensor:
        """(B * windows, n, C), or the (B * windows, n, reach ** 2) weights."""
        normed = self._normalise(x)
        q = partition_windows(self._q(normed), self.query_window, 0)
        kv = self._kv(normed if keys is x else self._normalise(keys))
        # Positions outside the map are zeros before the norm.
        outside = self._kv(self._normalise(keys.new_zeros(1, keys.shape[-1])))[0]
        hw, (grid, spans) = tuple(keys.shape[1:3]), self._geometry(x, keys, corner)
        mask = neighbourhood_mask(hw, grid, spans, corner, x.device)
        return neighbourhood_attention(
            q,
            kv,
            outside,
            grid,
            spans,
            self.attn.num_heads,
            self.attn.scale,
            mask,
            self.attn.dropout,
            weights,
        )

    def _geometry(self, x: Tensor, keys: Tensor, corner: tuple[int, int] | None):
        """Grid of windows and spans of their neighbourhoods, for rows and columns."""
        grid = tuple(-(-length // self.query_window) for length in x.shape[1:3])
        # Only the mask of everything outside the map makes it needless to look there.
        spans = tuple(
            neighbourhood_span(
                self.key_window, self.reach, count, length if corner is None else None
            )
            for count, length in zip(grid, keys.shape[1:3])
        )
        return grid, spans

    def _forward(self, x: Tensor, keys: Tensor, corner: tuple[int, int] | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: (B, H, W, C) queries, the residual.
            keys: (B, H', W', C).
            corner: See :func:`neighbourhood_mask`.
        """
        windows = self._attend(x, keys, corner, weights=False)
        attended = reverse_windows(windows, self.query_window, 0, x.shape[1:3])
        return self._finish(x, attended)

    def attention(self, x: Tensor, keys: Tensor, corner: tuple[int, int] | None = None) -> Tensor:
        grid, spans = self._geometry(x, keys, corner)
        starts = tuple([span.start(i) for i in range(count)] for span, count in zip(spans, grid))
        return spread_weights(
            self._attend(x, keys, corner, weights=True),
            grid,
            x.shape[1:3],
            self.query_window,
            starts,
            tuple(span.reach for span in spans),
            keys.shape[1:3],
        )


class GlobalBlock(SemanticBlock):
    """All queries attend to all keys: those of the maps given, or the queries themselves."""

    def _project_in(self, x: Tensor, keys: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        normed = self._normalise(x.flatten(1, 2))
        if keys:
            all_keys = torch.cat([key.flatten(1, 2) for key in keys], 1)
            return self._q(normed), self._kv(self._normalise(all_keys))
        return self._q(normed), self._kv(normed)

    def _forward(self, x: Tensor, *keys: Tensor) -> Tensor:
        attended = self.attn.attend(*self._project_in(x, keys))
        return self._finish(x, attended.view_as(x))

    def attention(self, x: Tensor, *keys: Tensor) -> Tensor:
        last = (keys or (x,))[-1]
        weights = self.attn.weights(*self._project_in(x, keys))
        weights = weights[..., -last.shape[1] * last.shape[2] :]
        return weights.view(*x.shape[:3], *last.shape[1:3])


class InnerNeighbourhoodBlock(SemanticBlock):
    """Semantic tokens attend to those of their window and to a neighbourhood inside the map.

    The attention replaces the tokens instead of being added to them. That is how the
    classification form makes its semantic tokens (``SemanticAttentionBlock`` of STViT-R's ImageNet
    code).

    Args:
        side: Side of the grid of semantic tokens in a window.
        window: Window side on the image map.
        reach: Side of its neighbourhood on the image map, moved to lie inside it.
        **kwargs: For :class:`SemanticBlock`.
    """

    def __init__(self, side: int, window: int, reach: int, **kwargs):
        super().__init__(**kwargs)
        self.side = side
        self.window = window
        self.reach = reach

    def _project_in(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B * windows, n, C), keys and values (B * windows, n + neighbourhood, 2C)."""
        own = self._normalise(x)
        q = partition_windows(self._q(own), self.side, 0)
        kv = partition_windows(self._kv(own), self.side, 0)
        around = cut_inner_neighbourhoods(
            self._kv(self._normalise(image)), self._grid(x), self.window, self.reach
        )
        return q, torch.cat([kv, around], 1)

    def _grid(self, x: Tensor) -> tuple[int, int]:
        return x.shape[1] // self.side, x.shape[2] // self.side

    def _forward(self, x: Tensor, image: Tensor) -> Tensor:
        windows = self.attn.attend(*self._project_in(x, image))
        attended = reverse_windows(windows, self.side, 0, x.shape[1:3])
        return self._feed_forward(self._project(attended))

    def attention(self, x: Tensor, image: Tensor) -> Tensor:
        weights = self.attn.weights(*self._project_in(x, image))[..., self.side**2 :]
        grid, hw = self._grid(x), image.shape[1:3]
        starts = tuple(
            inner_starts(length, count, self.window, self.reach) for length, count in zip(hw, grid)
        )
        return spread_weights(
            weights,
            grid,
            x.shape[1:3],
            self.side,
            starts,
            tuple(min(self.reach, length) for length in hw),
            hw,
        )
