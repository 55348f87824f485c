"""Reads the architecture off a state dict that has our names, by the card of its family."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .. import families
from ..errors import UserError
from ..families import Family

# How a length tells an argument, see families.Measured.
RULES: dict[str, Callable[[int], int]] = {
    'side': lambda n: n,
    'window': lambda n: (round(n**0.5) + 1) // 2,
    'image': lambda n: 4 * round(n**0.5),
}


class Arch(NamedTuple):
    """What tells one backbone from another.

    Attributes:
        family: Title of the family.
        width: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage; empty where blocks have none.
        extra_norm: Number of blocks to each extra norm; 0 for none.
    """

    family: str
    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    extra_norm: int = 0

    @property
    def card(self) -> Family:
        """Card of the family."""
        return families.get(self.family)

    @property
    def settings(self) -> dict[str, Any]:
        """The same as arguments of the family's class."""
        values = dict(
            self._asdict(), widths=tuple(self.width * 2**i for i in range(len(self.depths)))
        )
        size = {key: values[meaning] for key, meaning in self.card.size_keys.items()}
        return dict(arch=size) if self.card.size_is_arch else size

    @property
    def name(self) -> str:
        """Such as 'Swin tiny', or the family alone for sizes that have no name."""
        keys = {meaning: key for key, meaning in self.card.size_keys.items()}
        for name, size in self.card.sizes.items():
            width = size[keys['width']] if 'width' in keys else size[keys['widths']][0]
            if (width, tuple(size[keys['depths']])) == (self.width, self.depths):
                return f'{self.family} {name}'
        return self.family

    def is_relative_of(self, other: 'Arch') -> bool:
        """Whether this is of another family whose weights fit ``other``'s."""
        return families.get(self.family).name in other.card.relatives

    def differences(self, other: 'Arch') -> list[str]:
        """What keeps weights of this from ``other``, as ``name value (other's value)``.

        The family may differ where the cards say that blocks of this one fit the other's.
        """
        names = dict(
            family='family',
            width='channels',
            depths='depths',
            num_heads='heads',
            extra_norm='blocks to each extra norm',
        )
        if self.is_relative_of(other):
            del names['family']
        return [
            f'{text} {getattr(self, name)} (here {getattr(other, name)})'
            for name, text in names.items()
            if getattr(self, name) and getattr(self, name) != getattr(other, name)
        ]


def block_of(card: Family, name: str) -> tuple[int, int] | None:
    """Number of the stage and of the block that a parameter belongs to; None outside blocks."""
    match = re.match(card.names.block, name)
    if match is None:
        return None
    *stage, block = map(int, match.groups())
    return (stage[0] if stage else 0), block


def last_norm(card: Family, name: str, names: Iterable[str]) -> str:
    """A name, but the ``norm`` of old classifiers becomes the output norm of the last stage.

    Args:
        card: The family.
        name: The name.
        names: Names by whose blocks the stages are counted, those of a file or a model.
    """
    if not name.startswith('norm.') or card.names.out_norm is None:
        return name
    places = (block_of(card, other) for other in names)
    last = max((place[0] for place in places if place), default=0)
    return card.names.out_norm.format(last) + name[len('norm') :]


def find_arch(state_dict: Mapping[str, Tensor]) -> Arch | None:
    """The architecture, or None where the stem or the stages are missing.

    Args:
        state_dict: Names and tensors of a backbone, without prefix.
    """
    card = families.named_like(state_dict)
    if card is None:
        return None
    blocks: dict[int, int] = {}
    heads: dict[int, int] = {}
    normed = []
    for name, value in state_dict.items():
        place = block_of(card, name)
        if place is None:
            continue
        stage, block = place
        blocks[stage] = max(blocks.get(stage, 0), block + 1)
        if card.names.heads and re.fullmatch(card.names.heads[0], name):
            heads[stage] = value.shape[card.names.heads[1]]
        if card.names.extra_norm and re.fullmatch(card.names.extra_norm, name):
            normed.append(block + 1)
    if not blocks:
        return None
    return Arch(
        card.title,
        state_dict[card.names.stem].shape[0],
        tuple(blocks[i] for i in sorted(blocks)),
        tuple(heads[i] for i in sorted(heads)),
        min(normed, default=0),
    )


def backbone_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Config of one of our backbones that has a place for each of these names.

    A dense network of a family with spatial sparsity gets the default sparse blocks, which the
    file cannot fill.

    Args:
        state_dict: Names and tensors of a backbone, without prefix.

    Raises:
        UserError: If the stem or a stage is missing.
    """
    arch = find_arch(state_dict)
    indices = _out_indices(arch.card, state_dict) if arch else ()
    if (
        arch is None
        or max(indices, default=0) >= len(arch.depths)
        or (arch.card.names.heads and len(arch.num_heads) != len(arch.depths))
    ):
        raise UserError(
            'the weights of the backbone lack its stem or a stage; is the checkpoint complete?'
        )
    card = arch.card
    config = dict(card.maps, **arch.settings, type=card.cls, out_indices=indices)
    for told in card.names.told:
        found = any(re.fullmatch(told.pattern, name) for name in state_dict)
        config.update(told.present if found else told.absent)
    for measured in card.names.measured:
        for name, value in state_dict.items():
            if re.fullmatch(measured.pattern, name):
                config[measured.argument] = RULES[measured.rule](value.shape[measured.axis])
                break
    if card.spatial:
        config.update(_sparse_settings(arch, state_dict))
    return config


def _out_indices(card: Family, state_dict: Mapping[str, Tensor]) -> tuple[int, ...]:
    if card.names.out_norm is None:
        return card.all_stages
    pattern = card.names.out_norm_pattern + r'\.weight'
    return tuple(sorted(int(m[1]) for m in (re.fullmatch(pattern, k) for k in state_dict) if m))


def _sparse_settings(arch: Arch, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the sparse stage: what the names tell, or the defaults for a dense network."""
    card = arch.card
    spatial = [name for name in state_dict if re.match(card.spatial, name)]
    places = [place for place in (block_of(card, name) for name in spatial) if place]
    # Predictors lie outside the stages; the width of each tells its stage.
    widths = [
        state_dict[name].shape[0]
        for name in spatial
        if block_of(card, name) is None and re.fullmatch(r'\w+\.\d+\.norm\.weight', name)
    ]
    if widths:
        counts = {stage: widths.count(arch.width * 2**stage) for stage in range(len(arch.depths))}
        stages = [stage for stage, count in counts.items() if count]
        firsts = [min([b for s, b in places if s == stage], default=0) for stage in stages]
        # Where the later predictors stand cannot be told from the names, nor does it change them.
        blocks = [
            tuple(range(first, first + counts[stage])) for stage, first in zip(stages, firsts)
        ]
        several = len(stages) > 1
        unit = {} if places else dict(unit='skip_block')
        return dict(
            prune_stage=tuple(stages) if several else stages[0],
            prune_blocks=tuple(blocks) if several else blocks[0],
            keep_ratios=(1.0,) * len(widths),
            **unit,
        )
    stage = card.names.sparse_stage
    if len(arch.depths) > stage and arch.depths[stage] > 3:
        return dict(keep_ratios=0.7)
    return {}
