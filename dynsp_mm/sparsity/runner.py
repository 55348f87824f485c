"""How the blocks of a stage run: decide, choose the unit, hand the stream on."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch.nn as nn

from ..compat import is_compiling, is_watched
from ..layers import Block
from ..ops import PREDICTOR, ImageContent, Selection, named_range
from .decision import Decision, TokenStream
from .predictors import TokenPredictor
from .units import DENSE, Unit


class Site(NamedTuple):
    """A place in a stage where something is decided.

    Attributes:
        predictor: What scores the positions.
        ratio: Keep ratio.
        unit: What the decision gates from there on.
    """

    predictor: TokenPredictor
    ratio: float
    unit: Unit


class Schedule(NamedTuple):
    """What happens in a stage.

    Attributes:
        sites: Block index -> what is decided before that block; empty for a dense stage.
        selection: Rule of selection at inference.
        mixing: 'two_stream' or 'merged', see :func:`run_blocks`.
        content: What of the images is no padding; None for all of it.
        grad: Whether the forward has gradients, so that predictors learn.
    """

    sites: Mapping[int, Site] = {}
    selection: Selection = Selection()
    mixing: str = 'merged'
    content: ImageContent | None = None
    grad: bool = True


DENSE_SCHEDULE = Schedule()


def run_blocks(
    blocks: Iterable[nn.Module], stream: TokenStream, schedule: Schedule = DENSE_SCHEDULE
) -> TokenStream:
    """Runs the blocks of a stage.

    Until the first decision blocks are dense. From then on each obeys the latest one. At
    inference there is one map. In training ``mixing`` says what carries gradients to the
    decisions: two streams, merged where a predictor looks and at the end (arXiv 2207.01580, as
    its code does), or one map to which each block adds ``mask * slow + (1 - mask) * fast``. With
    one map training computes what inference computes for the same decisions; with two, only
    while a position's decision stays.

    Args:
        blocks: :class:`Block`, or modules around one, called as ``block(stream, unit,
            decision)``.
        stream: Input; its tokens are not changed unless it owns them.
        schedule: What is decided where.

    Returns:
        The stream after the last block, merged.
    """
    if schedule.content is not None:
        content = schedule.content.on(stream.grid, stream.tokens.device)
        stream = stream._replace(content=content)
    unit: Unit = DENSE
    decision: Decision | None = None
    for index, block in enumerate(blocks):
        site = schedule.sites.get(index)
        if site is not None:
            tokens = stream.merged(decision)
            with named_range(PREDICTOR):
                decision = site.predictor(
                    tokens,
                    stream.grid,
                    site.ratio,
                    schedule.selection,
                    stream.content,
                    schedule.grad,
                )
            unit = site.unit
            two_stream = decision.mask is not None and schedule.mixing == 'two_stream'
            if not two_stream:
                stream = stream._replace(tokens=tokens, fast=None)
            elif stream.fast is None:
                stream = stream._replace(fast=tokens)
            stream = stream._replace(owned=stream.owned and not _is_seen(site.predictor))
        # A module around a block may use its input afterwards, and so may a hook.
        known = isinstance(block, Block) and not is_compiling() and not is_watched(block)
        given = stream._replace(owned=stream.owned and known)
        stream = block(given, unit, decision)
        made = given.owned or stream.tokens is not given.tokens  # a unit may hand its input on
        stream = stream._replace(owned=known and made)
    tokens = stream.merged(decision)
    if stream.content is not None:  # what comes after may look across the border
        tokens = stream.content.clear(tokens)
    return stream._replace(tokens=tokens, fast=None)


def _is_seen(predictor: nn.Module) -> bool:
    """Whether hooks hold what a predictor was given."""
    return not is_compiling() and any(map(is_watched, predictor.modules()))
