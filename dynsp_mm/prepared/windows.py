"""Prepared window attention.

Shape legend: M = B * H * W tokens of B images, C channels, windows of n tokens, h heads.
"""

from typing import NamedTuple

from torch import Tensor

from ..ops import WINDOWS, Backend, Packed, WindowPlan, named_range, pieces, plan_windows


class PreparedWindowAttention(NamedTuple):
    """(Shifted-)window attention with the layer norm before it.

    Positions are projected before windows are padded, and only the windows at the borders of the
    map have a mask.

    Attributes:
        backend: Implementation that computes it.
        eps: Epsilon of the layer norm.
        qkv: Projection to queries, which are scaled already, keys and values.
        padding: (3C,) what padding has in their place.
        bias: (1, h, n, n) position bias.
        out: Output projection.
        window: Window side.
    """

    backend: Backend
    eps: float
    qkv: Packed
    padding: Tensor
    bias: Tensor
    out: Packed
    window: int

    def add_(
        self,
        tokens: Tensor,
        batch: int,
        hw: tuple[int, int],
        shift: int,
        sizes: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        """Adds to ``tokens`` (M, C), M = batch * H * W, the attention's output for them.

        No window reads what another one writes.

        Args:
            tokens: (M, C).
            batch: Images.
            hw: Size (H, W) of the maps.
            shift: Cyclic shift.
            sizes: Rows and columns of each map that are no padding, which gets nothing; None for
                all of them.
        """
        with named_range(WINDOWS):
            plan = plan_windows(batch, tuple(hw), self.window, shift, tokens.device, sizes=sizes)
            self._add_(tokens, plan)

    def _add_(self, tokens: Tensor, plan: WindowPlan) -> None:
        n = self.window**2
        chunk = self.backend.chunk and max(1, 2 * self.backend.chunk // n)
        for piece in pieces(len(plan.inner) // n, chunk):
            rows = plan.inner[piece.start * n : piece.stop * n]
            x = self._attend(self._project_in(tokens, rows), self.bias)
            self.backend.linear_add_(tokens, rows, x, self.out)
        if len(plan.border):
            qkv = self.padding.repeat(plan.mask.shape[0] * n, 1)
            qkv.index_copy_(0, plan.places, self._project_in(tokens, plan.border))
            x = self._attend(qkv, self.bias + plan.mask.to(self.bias.dtype))
            self.backend.linear_add_(tokens, plan.border, x.index_select(0, plan.places), self.out)

    def _project_in(self, tokens: Tensor, rows: Tensor) -> Tensor:
        return self.backend.linear(self.backend.gather_norm(tokens, rows, self.eps), self.qkv)

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """(windows * n, 3C) -> (windows * n, C)."""
        heads, n = self.bias.shape[1:3]
        q, k, v = qkv.view(-1, n, 3, heads, qkv.shape[1] // 3 // heads).permute(2, 0, 3, 1, 4)
        x = self.backend.attend(q, k, v, bias)
        return x.transpose(1, 2).reshape(len(qkv), -1)
