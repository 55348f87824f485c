"""Score predictor and its decision (arXiv 2207.01580; ``PredictorLG`` of its code)."""

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ..errors import UserError
from ..layers import vectors_equal
from ..ops import Backend, Content, Packed, Selection, pieces
from ..prepared import Preparable, pack_after_norm
from .decision import Decision, decide

# Bias of the two logits at the start: a probability of 0.95 for "slow", so that training
# departs from the dense network.
KEEP_LOGIT = 1.5


class PreparedPredictor(NamedTuple):
    """A predictor in which what is the same for all positions of a map is computed once.

    Attributes:
        backend: Implementation that computes it.
        eps: Epsilon of the layer norm.
        proj_local: The half of the first layer that stays local, C -> C/2.
        proj_whole: The half that becomes its mean, C -> C/2.
        local: Columns of the head's first layer for a position, C/2 -> C/2.
        whole: Columns of that layer for the mean of the map, with its bias.
        hidden: C/2 -> C/4.
        out: C/4 -> 2.
    """

    backend: Backend
    eps: float
    proj_local: Packed
    proj_whole: Packed
    local: Packed
    whole: Packed
    hidden: Packed
    out: Packed

    def log_probs(self, tokens: Tensor, content: Content | None = None) -> Tensor:
        """As of :class:`TokenPredictor`."""
        # A mean is of one image, so pieces of a map are taken image by image.
        size = 1 if self.backend.chunk else len(tokens)
        images = tokens.split(size)
        contents = [None] * len(images) if content is None else content.split(size)
        return torch.cat([self._log_probs(*part) for part in zip(images, contents)])

    def _log_probs(self, tokens: Tensor, content: Content | None) -> Tensor:
        k, (B, N, C) = self.backend, tokens.shape
        x = tokens.new_empty(B, N, C // 2)
        mean = x.new_zeros(B, C // 2, dtype=torch.promote_types(x.dtype, torch.float32))
        for piece in pieces(N, k.chunk):
            normed = k.gather_norm(tokens[:, piece].flatten(0, 1), None, self.eps)
            local = k.linear(k.linear_gelu(normed, self.proj_local), self.local)
            x[:, piece] = local.view(B, -1, C // 2)
            whole = k.linear_gelu(normed, self.proj_whole).view(B, -1, C // 2)
            if content is None:
                mean += whole.sum(1, dtype=mean.dtype) / N
            else:
                mean += (whole * content.weight[:, piece]).sum(1, dtype=mean.dtype)
        x += k.linear(mean.to(x.dtype), self.whole).unsqueeze(1)
        x = k.linear(k.linear_gelu(F.gelu(x).flatten(0, 1), self.hidden), self.out)
        return x.view(B, N, 2).float().log_softmax(-1)


class TokenPredictor(Preparable):
    """Scores each position from its own features and the mean of the map.

    LN -> linear -> GELU; half the channels stay local, the other half become their mean over
    all positions; linear C -> C/2 -> C/4 -> 2 with GELU between; log-softmax.

    Args:
        embed_dims: Channels C, a multiple of 4.
        eps: Epsilon of the layer norm: 1e-5 in Swin, 1e-6 in ConvNeXt.

    Raises:
        UserError: If C is not a multiple of 4.
    """

    def __init__(self, embed_dims: int, eps: float):
        super().__init__()
        if embed_dims % 4:
            raise UserError(
                f'embed_dims={embed_dims} of the sparse stage: the token predictor '
                'splits channels in four, so it must be a multiple of 4'
            )
        self.embed_dims = embed_dims
        self.norm = nn.LayerNorm(embed_dims, eps=eps)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.act = nn.GELU()
        self.head = nn.Sequential(
            nn.Linear(embed_dims, embed_dims // 2),
            nn.GELU(),
            nn.Linear(embed_dims // 2, embed_dims // 4),
            nn.GELU(),
            nn.Linear(embed_dims // 4, 2),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal (std 0.02) weights; the last bias makes it start by keeping."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.norm.reset_parameters()
        self.start_by_keeping()

    def start_by_keeping(self) -> None:
        """Sets the last bias so that nearly all positions are slow at first."""
        with torch.no_grad():
            self.head[-1].bias.copy_(torch.tensor([KEEP_LOGIT, -KEEP_LOGIT]))

    def _prepare(self, backend: Backend) -> PreparedPredictor | None:
        half = self.embed_dims // 2
        proj_local, proj_whole = (
            pack_after_norm(backend, self.norm, self.proj.weight[rows], self.proj.bias[rows])
            for rows in (slice(half), slice(half, None))
        )
        if proj_local is None:
            return None
        first, hidden, out = (layer for layer in self.head if isinstance(layer, nn.Linear))
        return PreparedPredictor(
            backend,
            self.norm.eps,
            proj_local,
            proj_whole,
            local=backend.pack(first.weight[:, :half], None),
            whole=backend.pack(first.weight[:, half:], first.bias),
            hidden=backend.pack(hidden.weight, hidden.bias),
            out=backend.pack(out.weight, out.bias),
        )

    def log_probs(self, tokens: Tensor, content: Content | None = None) -> Tensor:
        """(B, N, C) features -> (B, N, 2) float32 log-probabilities of slow and fast.

        The mean of the map is that of its content, where that is given.
        """
        prepared = self.prepared
        if prepared is not None:
            return prepared.log_probs(tokens, content)
        x = self.act(self.proj(self.norm(tokens)))
        local, whole = x.split(self.embed_dims // 2, dim=-1)
        mean = whole.mean(1, keepdim=True) if content is None else content.mean(whole)
        x = torch.cat([local, mean.expand_as(whole)], dim=-1)
        return self.head(x).float().log_softmax(-1)

    @property
    def learns(self) -> bool:
        """Whether it is trained: in training mode, with a parameter that is not frozen."""
        # Sharding wrappers may keep the parameters elsewhere.
        frozen = [not parameter.requires_grad for parameter in self.parameters()]
        return self.training and not (frozen and all(frozen))

    def is_at_start(self) -> bool:
        """Whether it is as it was drawn, by its values: training moves every bias.

        The ``init_cfg`` of a model around the backbone may have drawn it, all biases 0, where the
        backbone's ``init_weights`` does not come after. Weights that are not there, or not yet, are
        at no start. Waits for their device.
        """
        return vectors_equal(self, {'head.4.': (KEEP_LOGIT, -KEEP_LOGIT)}) or self.is_undecided()

    def is_undecided(self) -> bool:
        """Whether it is as it was drawn and does not start by keeping."""
        return vectors_equal(self)

    def forward(
        self,
        tokens: Tensor,
        hw: tuple[int, int],
        ratio: float,
        selection: Selection,
        content: Content | None = None,
        grad: bool = True,
    ) -> Decision:
        """Decides afresh for all positions of the map.

        Args:
            tokens: (B, N, C) features, N = H * W.
            hw: Size (H, W) of the map.
            ratio: Keep ratio, the budget of ``'topk'`` and the target of the training loss.
            selection: The rule at inference; training samples hard Gumbel decisions, but for
                ``'random'``, which draws alike in both and does not look at the features.
            content: Positions that are no padding, None for all: the budget is a share of these.
            grad: Whether the forward of the backbone has gradients.

        A predictor that is not trained, for it is frozen or there are no gradients, decides as at
        inference in training mode too.
        """
        if selection.type == 'random':
            samples = self.training
            scores = torch.rand(tokens.shape[:2], device=tokens.device).log()
        else:
            samples = grad and self.learns
            scores = self.log_probs(tokens, content)
        dtype = tokens.dtype if samples else None
        return decide(scores, hw, ratio, selection, dtype, content)
