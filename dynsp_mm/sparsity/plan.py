"""Where a backbone decides, with what budget, and what each decision gates."""

from collections.abc import Mapping, Sequence
from itertools import islice
from numbers import Integral, Real
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UserError, check_choice
from ..layers import Block
from ..ops import ImageContent, Selection
from .predictors import TokenPredictor
from .runner import DENSE_SCHEDULE, Schedule, Site
from .units import Unit, find_unit

MIXINGS = ('two_stream', 'merged')
# What one number r stands for at predictor k: in text, and as a function of r and k.
RATIO_RULES = {
    'hierarchical': ('r - 0.2 * k', lambda r, k: r - 0.2 * k),  # arXiv 2207.01580
    'geometric': ('r ** (k + 1)', lambda r, k: r ** (k + 1)),  # arXiv 2106.02034
}
TOPK = Selection()
KeepRatios = None | float | Sequence[float] | Sequence[Sequence[float]]


class Batch(NamedTuple):
    """What is known of the images of a forward before it begins.

    Attributes:
        contents: What of them is no padding, as each stage sees it; None for all.
        learns: Whether predictors that are trained learn from them.
    """

    contents: tuple[ImageContent, ...] | None = None
    learns: bool = True

    def clear(self, x: Tensor, stage: int) -> Tensor:
        """A (B, C, H, W) map of a stage with zeros where padding is."""
        if self.contents is None:
            return x
        content = self.contents[stage].on(tuple(x.shape[2:]), x.device)
        return x.masked_fill(~content.mask.view(len(x), 1, *x.shape[2:]), 0)

    def scale(self, x: Tensor, stage: int) -> Tensor:
        """A cleared (B, C, H, W) map, scaled so that its mean is that of the content."""
        if self.contents is None:
            return x
        H, W = x.shape[2:]
        counts = self.contents[stage].on((H, W), x.device).counts
        return x * (H * W / torch.tensor(counts, device=x.device)).view(-1, 1, 1, 1).to(x.dtype)


UNKNOWN = Batch()  # no padding, and predictors learn


class Gate(NamedTuple):
    """One decision of a plan.

    Attributes:
        stage: Index of the stage.
        block: Index of the block that the decision stands before.
        unit: What it gates, from that block to the next decision or the end of the stage.
        ratio: Keep ratio.
    """

    stage: int
    block: int
    unit: Unit
    ratio: float


class SparsityPlan:
    """The decisions of a backbone, in order. A plan without any is that of a dense network.

    Args:
        gates: The decisions, by stage and block.
        selection: Rule of selection at inference.
        mixing: 'two_stream' or 'merged', see :func:`~dynsp_mm.sparsity.runner.run_blocks`.
        rule: Name of what one number for all keep ratios means, of :data:`RATIO_RULES`.

    Attributes:
        targets: One ratio for each predictor, None when dense: those it was built with, or that
            ``keep_ratios`` was set to since. :meth:`anneal` leaves them.
        supervised: Whether something holds the keep ratios in training, such as the hook of
            sparse training. Without it decisions drift to keeping all.
    """

    def __init__(
        self,
        gates: Sequence[Gate] = (),
        selection: Selection = TOPK,
        mixing: str = 'merged',
        rule: str = 'hierarchical',
    ):
        self.gates = tuple(gates)
        self.targets = self.keep_ratios
        self.rule = rule
        self.selection = selection
        self.mixing = mixing
        self.supervised = False

    @classmethod
    def parse(
        cls,
        depths: Sequence[int],
        keep_ratios: KeepRatios = None,
        prune_stage: int | Sequence[int] = 2,
        prune_blocks: None | Sequence[int] | Sequence[Sequence[int] | None] = None,
        selection: str | Mapping | Selection = 'topk',
        mixing: str = 'merged',
        unit: str = 'dual_path',
        rule: str = 'hierarchical',
    ) -> 'SparsityPlan':
        """Reads the arguments of spatial sparsity, which all backbones share.

        Args:
            depths: Blocks of each stage.
            keep_ratios: Share of positions on the slow path: None or 1.0 for the dense network;
                a tuple with a ratio for each predictor, in order; or one number r, which means
                (r, r - 0.2, r - 0.4, ...) in each sparse stage, or what ``rule`` says. Several
                stages may have a tuple each.
            prune_stage: Index of the sparse stage, or the indices of several.
            prune_blocks: Blocks of the stage with a predictor before them, for several stages a
                tuple each. None means ``k * max(1, depth // 9)`` for k = 1, 2, 3, the published
                placement; of several stages a shallow one has those that exist. Blocks from the
                first on obey decisions.
            selection: 'topk'; dict(type='threshold', threshold=0.5), where the ratios only steer
                the training loss; or 'random', in training too, to compare with: each image
                keeps as many positions as with 'topk', drawn anew each time, and nothing is
                predicted.
            mixing: How both paths run in training, so that decisions get gradients: 'merged',
                one map as at inference, or 'two_stream', two maps as in the authors' code, which
                takes more time and memory.
            unit: What decisions gate: 'dual_path', where fast positions take a linear layer
                instead of the MLP; 'skip_block', where they pass blocks unchanged; or the name
                of another unit that was registered.
            rule: Rule of the family for one number, of :data:`RATIO_RULES`; no argument of users.

        Raises:
            UserError: An argument is out of its range; the message names argument, value, rule.
        """
        several = isinstance(prune_stage, (list, tuple))
        stages = tuple(prune_stage) if several else (prune_stage,)
        for stage in stages:
            if (
                not isinstance(stage, Integral)
                or isinstance(stage, bool)
                or not 0 <= stage < len(depths)
            ):
                raise UserError(
                    f'prune_stage={prune_stage!r}: must be the index of a stage, '
                    f'0 .. {len(depths) - 1}' + (', or several of them' if several else '')
                )
        if not stages or any(b <= a for a, b in zip(stages, stages[1:])):
            raise UserError(f'prune_stage={prune_stage!r}: must be ascending indices, one or more')
        selection = Selection.parse(selection)
        check_choice('mixing', mixing, MIXINGS)
        chosen = find_unit(unit)
        if mixing == 'two_stream' and not chosen.two_stream:
            raise UserError(f"mixing='two_stream': unit={unit!r} has one map; take 'merged'")
        # Blocks are only looked at when something is to be pruned: a dense model may be shallow.
        if is_dense(keep_ratios):
            return cls((), selection, mixing, rule)
        depths = [depths[stage] for stage in stages]
        blocks = _blocks_of_stages(prune_blocks if several else [prune_blocks], depths, several)
        ratios = parse_keep_ratios(keep_ratios, [len(group) for group in blocks], rule)
        places = [(int(s), block) for s, group in zip(stages, blocks) for block in group]
        gates = [Gate(*place, chosen, ratio) for place, ratio in zip(places, ratios)]
        return cls(gates, selection, mixing, rule)

    # ------------------------------------------------------------------ budgets
    @property
    def keep_ratios(self) -> tuple[float, ...] | None:
        """One ratio for each predictor, None when dense."""
        return tuple(gate.ratio for gate in self.gates) or None

    @keep_ratios.setter
    def keep_ratios(self, value: KeepRatios) -> None:
        if not self.gates:
            raise UserError(
                f'keep_ratios={value!r}: this backbone was built dense and has no '
                'predictors; build it with keep_ratios'
            )
        counts = [len(self.blocks(stage)) for stage in self.stages]
        ratios = parse_keep_ratios(value, counts, self.rule) or (1.0,) * len(self.gates)
        self.anneal(ratios)
        self.targets = ratios

    def anneal(self, ratios: Sequence[float]) -> None:
        """Sets ratios, one for each predictor, that hold for a while on the way to the targets."""
        self.gates = tuple(gate._replace(ratio=r) for gate, r in zip(self.gates, ratios))

    # ------------------------------------------------------------------ places
    @property
    def stages(self) -> tuple[int, ...]:
        """Indices of the sparse stages."""
        return tuple(dict.fromkeys(gate.stage for gate in self.gates))

    def blocks(self, stage: int) -> tuple[int, ...]:
        """Blocks of a stage that a decision stands before."""
        return tuple(gate.block for gate in self.gates if gate.stage == stage)

    def unit_of(self, stage: int, block: int) -> Unit | None:
        """The unit that a block runs in; None for a dense block."""
        gates = [g for g in self.gates if g.stage == stage and g.block <= block]
        return gates[-1].unit if gates else None

    def needs_fast_path(self, stage: int, block: int) -> bool:
        """Whether a block needs a cheap branch."""
        unit = self.unit_of(stage, block)
        return unit is not None and unit.needs_cheap

    def check(self, stage: int, blocks: Sequence[nn.Module]) -> None:
        """Checks that the blocks of a stage can run as planned.

        Raises:
            UserError: A unit cannot serve a block.
        """
        for index, block in enumerate(blocks):
            unit = self.unit_of(stage, index)
            if unit is not None and isinstance(block, Block):
                unit.check(block, f'block {index} of stage {stage}')

    # ------------------------------------------------------------------ predictors
    def make_predictors(self, widths: Sequence[int], eps: float) -> nn.ModuleList:
        """A predictor for each decision.

        Args:
            widths: Channels of each stage.
            eps: Epsilon of their layer norms.
        """
        predictors = nn.ModuleList(TokenPredictor(widths[g.stage], eps) for g in self.gates)
        if self.selection.type == 'random':  # they are not asked
            predictors.requires_grad_(False)
        return predictors

    def predictors_of(self, stage: int, predictors: nn.ModuleList) -> list[nn.Module]:
        """Those of the predictors that stand in a stage."""
        return [p for gate, p in zip(self.gates, predictors) if gate.stage == stage]

    def schedule(self, stage: int, predictors: nn.ModuleList, batch: Batch = UNKNOWN) -> Schedule:
        """What the runner needs to know of a stage.

        Args:
            stage: Index of the stage.
            predictors: Those of all stages.
            batch: What is known of the images.
        """
        sites = {
            gate.block: Site(predictor, gate.ratio, gate.unit)
            for gate, predictor in zip(self.gates, predictors)
            if gate.stage == stage
        }
        content = None if batch.contents is None else batch.contents[stage]
        if not sites and content is None:
            return DENSE_SCHEDULE
        return Schedule(sites, self.selection, self.mixing, content, batch.learns)


# The names of the arguments above, for those who hand them on.
ARGUMENTS = ('keep_ratios', 'prune_stage', 'prune_blocks', 'selection', 'mixing', 'unit')


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_dense(keep_ratios: KeepRatios) -> bool:
    """Whether a ``keep_ratios`` argument asks for the dense network: None or 1.0."""
    return keep_ratios == 1 if _is_number(keep_ratios) else keep_ratios is None


def parse_keep_ratios(
    keep_ratios: KeepRatios, counts: Sequence[int], rule: str = 'hierarchical'
) -> tuple[float, ...] | None:
    """Checks keep ratios and expands a single number.

    Args:
        keep_ratios: See :meth:`SparsityPlan.parse`. A number is rounded to 6 decimals.
        counts: Number of predictors of each sparse stage.
        rule: What one number means, of :data:`RATIO_RULES`.

    Returns:
        One ratio for each predictor, or None for dense.

    Raises:
        UserError: For a wrong type or count, a ratio outside (0, 1], ratios that increase within
            a stage.
    """
    if is_dense(keep_ratios):
        return None
    entries = [keep_ratios] * len(counts)
    nested = isinstance(keep_ratios, (list, tuple)) and any(
        isinstance(entry, (list, tuple)) for entry in keep_ratios
    )
    if nested or (len(counts) > 1 and isinstance(keep_ratios, (list, tuple))):
        entries, needed = keep_ratios, len(counts)
        what = f'entry for each of the {needed} sparse stages'
        if not nested:
            needed = sum(counts)
            what = f'ratio for each of the {needed} predictors of {len(counts)} stages'
        if len(entries) != needed:
            raise UserError(f'keep_ratios={keep_ratios!r}: needs one {what}; got {len(entries)}')
        if not nested:
            rest = iter(entries)
            entries = [tuple(islice(rest, count)) for count in counts]
        # A stage that keeps everything still has its predictors.
        entries = [(1.0,) * n if is_dense(entry) else entry for entry, n in zip(entries, counts)]
    return tuple(r for entry, n in zip(entries, counts) for r in _ratios_of_stage(entry, n, rule))


def _ratios_of_stage(
    keep_ratios: float | Sequence[float], count: int, rule: str
) -> tuple[float, ...]:
    if _is_number(keep_ratios):
        text, ratio_at = RATIO_RULES[rule]
        ratios = tuple(round(ratio_at(float(keep_ratios), k), 6) for k in range(count))
        if not (keep_ratios < 1 and ratios[-1] > 0):
            least = 0.2 * (count - 1) if rule == 'hierarchical' else 0
            raise UserError(
                f'keep_ratios={keep_ratios!r}: one number r stands for {text} at predictor '
                f'k = 0 .. {count - 1}, so it must lie in ({least:g}, 1]; give a tuple '
                f'of {count} ratios for other budgets'
            )
        return ratios
    if not isinstance(keep_ratios, (list, tuple)):
        raise UserError(
            f'keep_ratios={keep_ratios!r}: must be None, a number or a tuple of '
            f'{count} numbers, one per predictor'
        )
    ratios = tuple(keep_ratios)
    for k, ratio in enumerate(ratios):
        if not _is_number(ratio) or not 0 < ratio <= 1:
            raise UserError(
                f'keep_ratios={ratios!r}: each ratio must lie in (0, 1]; '
                f'got {ratio!r} at position {k}'
            )
    if len(ratios) != count:
        raise UserError(
            f'keep_ratios={ratios!r}: needs one ratio for each of the {count} '
            f'predictors; got {len(ratios)}'
        )
    for k, (before, ratio) in enumerate(zip(ratios, ratios[1:]), 1):
        if ratio > before:
            raise UserError(
                f'keep_ratios={ratios!r}: ratios must not increase from one predictor '
                f'to the next; got {ratio!r} after {before!r} at position {k}'
            )
    return tuple(float(ratio) for ratio in ratios)


def parse_prune_blocks(prune_blocks: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Checks the blocks of a stage that get a predictor before them.

    Args:
        prune_blocks: Ascending block indices, or None for ``k * max(1, depth // 9)``,
            k = 1, 2, 3, which is the published placement.
        depth: Blocks in the stage.

    Raises:
        UserError: For indices that are not ascending or lie beyond the stage.
    """
    if prune_blocks is None:
        prune_blocks = _published_blocks(depth)
    blocks = tuple(prune_blocks) if isinstance(prune_blocks, (list, tuple)) else (prune_blocks,)
    if not blocks or not all(isinstance(b, Integral) and not isinstance(b, bool) for b in blocks):
        raise UserError(f'prune_blocks={prune_blocks!r}: must be a tuple of block indices')
    if any(b <= a for a, b in zip(blocks, blocks[1:])):
        raise UserError(f'prune_blocks={blocks!r}: block indices must ascend')
    for block in blocks:
        if not 0 <= block < depth:
            raise UserError(
                f'prune_blocks={blocks!r}: block {block} is beyond the sparse stage, '
                f'which has blocks 0 .. {depth - 1}'
            )
    return tuple(int(block) for block in blocks)


def _published_blocks(depth: int) -> tuple[int, ...]:
    return tuple(k * max(1, depth // 9) for k in (1, 2, 3))


def _blocks_of_stages(
    prune_blocks: None | Sequence[Sequence[int] | None], depths: Sequence[int], several: bool
) -> list[tuple[int, ...]]:
    entries = [None] * len(depths) if prune_blocks is None else prune_blocks
    if not isinstance(entries, (list, tuple)) or len(entries) != len(depths):
        raise UserError(
            f'prune_blocks={prune_blocks!r}: needs a tuple of block indices for each of the '
            f'{len(depths)} sparse stages'
        )
    if several:
        entries = [
            tuple(b for b in _published_blocks(depth) if b < depth) or (0,)
            if entry is None
            else entry
            for entry, depth in zip(entries, depths)
        ]
    return [parse_prune_blocks(entry, depth) for entry, depth in zip(entries, depths)]
