"""What a decision gates: the kinds of spatial sparsity.

A unit runs a block. Each form that a block can take is written here once, from what
:class:`~dynsp_mm.layers.block.Block` gives. To add a kind, derive from :class:`Unit`, implement
:meth:`Unit.run`, and register it with :func:`register_unit`; the plan then takes its name.

Shape legend: B images, N positions, C channels, M = B * N tokens. ``place`` is what a block's
``mix`` takes after its tokens: the size of the map, and what of it is no padding.
"""

from collections.abc import Callable
from typing import Any

import torch.nn as nn
from torch import Tensor

from ..errors import UserError, check_choice
from ..layers import Block, PreparedBlock
from ..ops import Content, dual_path, merge_streams, route_streams
from .decision import Decision, Rows, TokenStream


class Unit:
    """How blocks run under a decision. Units have no state; one instance serves all blocks.

    Attributes:
        name: What configs call it.
        localities: The :attr:`Block.locality` of blocks that it serves.
        needs_cheap: Whether blocks need a cheap branch.
        two_stream: Whether the training forward may keep a map for each future of a position.
    """

    name: str = ''
    localities: tuple[str, ...] = ('position', 'window', 'map')
    needs_cheap: bool = False
    two_stream: bool = False

    def check(self, block: Block, where: str) -> None:
        """Checks that the unit can run a block.

        Args:
            block: The block.
            where: Its place, for the message.

        Raises:
            UserError: It cannot.
        """
        if block.locality not in self.localities:
            raise UserError(
                f'unit={self.name!r} in {where}: {type(block).__name__} mixes by '
                f'{block.locality}; the unit needs a block that mixes by '
                f'{" or ".join(self.localities)}'
            )
        if self.needs_cheap and block.fast_path is None:
            raise UserError(
                f'unit={self.name!r} in {where}: {type(block).__name__} has no fast path; the '
                'unit needs one'
            )

    def run(self, block: Block, stream: TokenStream, decision: Decision | None) -> TokenStream:
        """Runs the block.

        Args:
            block: The block.
            stream: Its input.
            decision: The latest decision; None before the first.

        Returns:
            Its output.
        """
        raise NotImplementedError


UNITS: dict[str, Unit] = {}


def register_unit(cls: type[Unit]) -> type[Unit]:
    """Class decorator: makes a unit known under its name.

    Raises:
        UserError: It is no :class:`Unit`, has no name, or another one has the name.
    """
    if not issubclass(cls, Unit):
        raise UserError(f'unit {cls.__name__}: must inherit from Unit')
    if not cls.name or cls.name in UNITS:
        raise UserError(f'unit={cls.name!r} of {cls.__name__}: must be a name of its own')
    UNITS[cls.name] = cls()
    return cls


def find_unit(name: str) -> Unit:
    """The unit of a name.

    Raises:
        UserError: There is none.
    """
    return UNITS[check_choice('unit', name, tuple(UNITS))]


class Dense(Unit):
    """Every position takes the MLP."""

    def run(self, block: Block, stream: TokenStream, decision: Decision | None) -> TokenStream:
        """Runs the block as dense networks do."""
        form = block.prepared
        if form is None:
            tokens = block.run(_dense, stream.tokens, stream.grid, stream.content)
        else:
            tokens = _prepared(block, form, stream, None, None)
        return stream._replace(tokens=tokens)


DENSE = Dense()


@register_unit
class DualPath(Unit):
    """Slow positions take the MLP, the others a cheap branch (arXiv 2207.01580, section 3.2).

    Mixing covers the whole map. At inference each branch runs on its own positions. In training
    one map gets ``mask * mlp + (1 - mask) * cheap``, or two maps flow, one for each future.
    """

    name = 'dual_path'
    needs_cheap = True
    two_stream = True

    def run(self, block: Block, stream: TokenStream, decision: Decision | None) -> TokenStream:
        """Runs the block in the form that the stream and the decision ask for."""
        x, place = stream.tokens, (stream.grid, stream.content)
        if stream.fast is not None:
            slow, fast = block.run(_two_streams, x, stream.fast, decision.mask, *place)
            return stream._replace(tokens=slow, fast=fast)
        if decision.mask is not None:
            return stream._replace(tokens=block.run(_merged, x, decision.mask, *place))
        form = block.prepared
        if form is None:
            tokens = block.run(_gathered, x, decision.slow, decision.fast, *place)
        else:
            tokens = _prepared(block, form, stream, decision.slow, decision.fast)
        return stream._replace(tokens=tokens)


@register_unit
class SkipBlock(Unit):
    """Slow positions take the block, the others pass it unchanged.

    Mixing is computed for the whole map, since slow positions look at the others; fast positions
    keep neither its result nor an MLP's.
    """

    name = 'skip_block'

    def run(self, block: Block, stream: TokenStream, decision: Decision | None) -> TokenStream:
        """Runs the block where the decision says so."""
        x, place = stream.tokens, (stream.grid, stream.content)
        if decision.mask is not None:
            return stream._replace(tokens=block.run(_masked_block, x, decision.mask, *place))
        form = block.prepared
        if form is None:
            return stream._replace(tokens=block.run(_chosen_block, x, decision.slow, *place))
        # The block writes over the copy; fast positions keep what they had.
        kept = x.flatten(0, 1).index_select(0, decision.fast)
        tokens = _prepared(block, form, stream, decision.slow, None)
        tokens.view(-1, tokens.shape[-1]).index_copy_(0, decision.fast, kept)
        return stream._replace(tokens=tokens)


def _mix(block: Block, x: Tensor, *place: Any) -> tuple[Tensor, Tensor]:
    tokens, residual = block.mix(x, *place)
    return tokens, x if residual is None else residual


def _row_drop(block: Block, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Stochastic depth for rows ``index`` of the maps ``x``, which an image loses all or none of.

    Only blocks that are trained under a predictor that is not have any.
    """
    if isinstance(block.drop_path, nn.Identity) or not block.drop_path.training:
        return lambda update, index: update
    factors, positions = block.drop_path(x.new_ones(x.shape[0], 1)), x.shape[1]
    return lambda update, index: update * factors[index // positions]


def _dense(
    block: Block, x: Tensor, grid: tuple[int, int], content: Content | None = None
) -> Tensor:
    tokens, residual = _mix(block, x, grid, content)
    rows = None if content is None else Rows(weight=content.mask.unsqueeze(-1).to(x.dtype))
    return block.finish(residual + block.drop_path(block.mlp(tokens, rows)))


def _gathered(block: Block, x: Tensor, slow: Tensor, fast: Tensor, *place: Any) -> Tensor:
    tokens, residual = _mix(block, x, *place)
    rows, drop = Rows(slow, *x.shape[:2]), _row_drop(block, x)
    out = dual_path(
        tokens.flatten(0, 1),
        residual.flatten(0, 1),
        slow,
        fast,
        lambda chosen: drop(block.mlp(chosen, rows), slow),
        lambda chosen: drop(block.cheap(chosen), fast),
    )
    return block.finish(out.view_as(x))


def _merged(block: Block, x: Tensor, mask: Tensor, *place: Any) -> Tensor:
    tokens, residual = _mix(block, x, *place)
    update = merge_streams(mask, block.mlp(tokens, Rows(weight=mask)), block.cheap(tokens))
    return block.finish(residual + block.drop_path(update))


def _two_streams(
    block: Block, slow: Tensor, fast: Tensor, mask: Tensor, *place: Any
) -> tuple[Tensor, Tensor]:
    mixed, residual = block.mix(merge_streams(mask, slow, fast), *place)
    slow_tokens, fast_tokens = route_streams(mask, mixed, slow, fast)
    # A block that adds to its own input adds to that of each stream.
    slow_residual, fast_residual = (slow, fast) if residual is None else (residual, residual)
    slow_update = block.mlp(slow_tokens, Rows(weight=mask))
    return (
        block.finish(slow_residual + block.drop_path(slow_update)),
        block.finish(fast_residual + block.drop_path(block.cheap(fast_tokens))),
    )


def _masked_block(block: Block, x: Tensor, mask: Tensor, *place: Any) -> Tensor:
    tokens, residual = _mix(block, x, *place)
    update = block.drop_path(block.mlp(tokens, Rows(weight=mask)))
    return merge_streams(mask, block.finish(residual + update), x)


def _chosen_block(block: Block, x: Tensor, slow: Tensor, *place: Any) -> Tensor:
    tokens, residual = (t.flatten(0, 1).index_select(0, slow) for t in _mix(block, x, *place))
    update = _row_drop(block, x)(block.mlp(tokens, Rows(slow, *x.shape[:2])), slow)
    chosen = block.finish(residual + update)
    return x.flatten(0, 1).index_copy(0, slow, chosen.to(x.dtype)).view_as(x)


def _prepared(
    block: Block, form: PreparedBlock, stream: TokenStream, slow: Tensor | None, fast: Tensor | None
) -> Tensor:
    """Writes the block's output over the stream's tokens; all are slow where that is None."""
    x = stream.writable()
    tokens = block.mix_prepared(form, x, stream.grid, stream.content)
    out = x.view(-1, x.shape[-1])
    form.mlp.add_(out, tokens, slow)
    if fast is not None:
        form.cheap.add_(out, tokens, fast)
    return block.finish(x)
