"""What a table of names consists of, and the register of tables.

A file in ``sources`` imports from here alone and registers its tables.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from ..errors import UserError

BACKBONE = 'backbone.'
# Template of a new name, or a function of the match that makes it.
Target = str | Callable[[re.Match], str]


class Change(NamedTuple):
    """What becomes of one entry.

    Attributes:
        name: The new name, or None when the entry is dropped.
        value: The new tensor.
        reason: Why a dropped entry is not needed.
    """

    name: str | None
    value: Tensor
    reason: str = ''


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the keys that ``pattern`` matches in full.

    Args:
        pattern: Regular expression.
        target: Template of the new name (``\1`` etc.), a function that makes the name of the
            match, a tuple of these where the tensor goes into several, or None when the key is
            dropped.
        reason: Why a dropped key is not needed.
        transform: Function applied to the tensor; with a tuple of targets, it returns a tensor
            for each.
        beside: Template of another key that must be there for the rule to hold.
    """

    pattern: str
    target: Target | tuple[Target, ...] | None
    reason: str = ''
    transform: Callable[[Tensor], Tensor | Sequence[Tensor]] | None = None
    beside: str | None = None

    def match(self, key: str, state_dict: Mapping[str, Tensor]) -> re.Match | None:
        """The match with ``key``, a key of ``state_dict``, if the rule holds for it."""
        match = re.fullmatch(self.pattern, key)
        if match and self.beside and match.expand(self.beside) not in state_dict:
            return None
        return match

    def changes(self, match: re.Match, value: Tensor) -> tuple[Change, ...]:
        """What becomes of the entry that matched."""
        if self.target is None:
            return (Change(None, value, self.reason),)
        several = isinstance(self.target, tuple)
        targets = self.target if several else (self.target,)
        value = value if self.transform is None else self.transform(value)
        names = (match.expand(t) if isinstance(t, str) else t(match) for t in targets)
        return tuple(map(Change, names, value if several else (value,)))


@dataclass(frozen=True)
class Source:
    """A program whose checkpoints are understood.

    Args:
        name: Name for messages.
        signature: Regular expressions; each must match the start of some key of the backbone.
        rules: Rules tried in order; the first that matches a key in full decides.
        native: Whether the names are those of our own backbones.
        refusal: Why its checkpoints are not taken, and what to do; empty for those that are.
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...] = ()
    native: bool = False
    refusal: str = ''

    def recognises(self, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether the keys of a backbone, without prefix, are this program's."""
        return all(any(re.match(s, key) for key in state_dict) for s in self.signature)

    def changes(
        self, key: str, state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor] | None
    ) -> tuple[Change, ...]:
        """What becomes of a key; empty if it is unknown.

        Args:
            key: One of the keys.
            state_dict: Names and tensors of the backbone, without prefix.
            own: Those of the model that will load them, where it is known.
        """
        for rule in self.rules:
            match = rule.match(key, state_dict)
            if match:
                return rule.changes(match, state_dict[key])
        return ()


@dataclass
class Conversion:
    """Result of a conversion; every key of the source is in ``mapped`` or ``dropped``.

    Attributes:
        source: The program.
        state_dict: New names and tensors.
        mapped: (old name, new name).
        dropped: (old name, reason).
    """

    source: Source
    state_dict: dict[str, Tensor] = field(default_factory=dict)
    mapped: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The backbone's entries, without its prefix."""
        return {
            key[len(BACKBONE) :]: value
            for key, value in self.state_dict.items()
            if key.startswith(BACKBONE)
        }


_SOURCES: dict[str, Source] = {}


def register(*sources: Source) -> None:
    """Adds tables; a file in ``sources`` calls this once.

    Raises:
        UserError: If another table has the name.
    """
    for source in sources:
        if _SOURCES.setdefault(source.name, source) is not source:
            raise UserError(f'source {source.name!r}: there is one of that name already')


def registered() -> tuple[Source, ...]:
    """All registered tables."""
    return tuple(_SOURCES.values())
