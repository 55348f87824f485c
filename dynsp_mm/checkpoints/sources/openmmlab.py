"""Files that have the names of our backbones already.

They are those of dense Swin, Swin-V2 and ConvNeXt of mmdet, mmseg and mmpretrain, and what this
package trained.

There is no table. A name is known if the model that will load it has it, or if a tiny network of
a family with these names has it but for the numbers of stage and block. The second is needed
because a file may hold what a model does not take, such as predictors for a dense model; another
name is of a network that computes something else.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from mmengine.registry import MODELS
from torch import Tensor

from ...families import Family, all_families
from ..arch import last_norm
from ..rules import BACKBONE, Change, Source


@dataclass(frozen=True)
class NativeSource(Source):
    """Checkpoints with our own names.

    Args:
        cards: The families that have these names.
    """

    cards: tuple[Family, ...] = ()
    native: bool = True

    def changes(
        self, key: str, state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor] | None
    ) -> tuple[Change, ...]:
        """Drops derived buffers, renames an old last norm, makes 1x1 convolutions linear."""
        value = state_dict[key]
        for card in self.cards:
            for pattern, reason in card.names.dropped.items():
                if re.fullmatch(pattern, key):
                    return (Change(None, value, reason),)
        name = last_norm(self.cards[0], key, state_dict)
        dims = own[name].dim() if own and name in own else self._dims_of(name)
        if dims is None:
            return ()
        if value.dim() == 4 and dims == 2 and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        return (Change(BACKBONE + name, value),)

    def _dims_of(self, name: str) -> int | None:
        """Number of axes of a tensor by its name; None for an unknown name."""
        for card in self.cards:
            dims = vocabulary(card).get(without_numbers(card, name))
            if dims is not None:
                return dims
        return None


def without_numbers(card: Family, name: str) -> str:
    """A name with '#' for the numbers of its stage and block, or for its first number."""
    match = re.match(card.names.block, name)
    if match:
        return re.sub(r'\d+', '#', match[0]) + name[match.end() :]
    if card.names.out_norm is not None:
        norm = rf'^{card.names.out_norm_pattern}\.'
        name = re.sub(norm, card.names.out_norm.format('#') + '.', name)
    return re.sub(r'(?<=\.)\d+(?=\.)', '#', name, count=1)


@lru_cache
def vocabulary(card: Family) -> dict[str, int]:
    """Names of a family without numbers -> axes of the tensor, from its card's tiny networks."""
    with torch.random.fork_rng(devices=[]), torch.device('cpu'):
        models = [MODELS.get(card.cls)(**sample) for sample in card.samples]
    return {
        without_numbers(card, name): value.dim()
        for model in models
        for name, value in model.state_dict().items()
    }


def native_sources() -> tuple[NativeSource, ...]:
    """One for each set of names that families have."""
    groups: dict[str, list[Family]] = {}
    for card in all_families():
        groups.setdefault(card.names.source, []).append(card)
    return tuple(
        NativeSource(name, (cards[0].names.signature,), cards=tuple(cards))
        for name, cards in groups.items()
    )
