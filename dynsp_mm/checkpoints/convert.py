"""Converts state dicts by tables of rules; a source is one table in a file of its own.

A converted dict has the layout of an OpenMMLab model: ``backbone.`` before the names of our
backbones, ``head.fc.`` for an ImageNet classifier, other parts of a detector as they were.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import Tensor

ENTRIES = ('state_dict', 'model', 'model_ema', 'ema_state_dict')
BACKBONE = 'backbone.'


@dataclass(frozen=True)
class Rule:
    """What becomes of the keys that ``pattern`` matches in full.

    Args:
        pattern: Regular expression.
        target: Template of the new name (``\\1`` etc.), or None when the key is dropped.
        reason: Why a dropped key is not needed.
        transform: Applied to the tensor.
        beside: Template of another key that must be there for the rule to hold.
    """

    pattern: str
    target: str | None
    reason: str = ''
    transform: Callable[[Tensor], Tensor] | None = None
    beside: str | None = None

    def match(self, key: str, state_dict: Mapping[str, Tensor]) -> Optional['re.Match']:
        """The match with ``key``, a key of ``state_dict``, if the rule holds for it."""
        match = re.fullmatch(self.pattern, key)
        if match and self.beside and match.expand(self.beside) not in state_dict:
            return None
        return match


@dataclass(frozen=True)
class Source:
    """A program whose checkpoints are understood.

    Args:
        name: For messages.
        signature: Regular expressions; each must match the start of some key of the backbone.
        rules: Tried in order; the first that matches a key in full decides.
        native: Whether the names are those of our own backbones.
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]
    native: bool = False

    def recognises(self, state_dict: Mapping[str, Tensor]) -> bool:
        return all(any(re.match(s, key) for key in state_dict) for s in self.signature)


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
        """The backbone's part, without its prefix."""
        return {
            key[len(BACKBONE) :]: value
            for key, value in self.state_dict.items()
            if key.startswith(BACKBONE)
        }


def unwrap(checkpoint: Any, entry: str | None = None) -> dict[str, Tensor]:
    """Takes the state dict out of its nesting and strips ``module.``.

    Args:
        checkpoint: What a file holds.
        entry: Where the weights are; None means the first of :data:`ENTRIES` that is there, or
            the top.

    Raises:
        ValueError: If no non-empty mapping of names to tensors is found.
    """
    for key in (entry,) if entry else ENTRIES:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    else:
        if entry:
            raise ValueError(f'the checkpoint has no entry {entry!r}')
        key = None
    tensors = dict(checkpoint) if isinstance(checkpoint, Mapping) else {}
    if key == 'ema_state_dict':
        tensors.pop('steps', None)  # a count beside the averaged weights
    if not tensors or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise ValueError(
            'the checkpoint holds no state dict: expected names with tensors, at the '
            f'top or under one of {", ".join(map(repr, ENTRIES))}'
        )
    names = {name: name[7:] if name.startswith('module.') else name for name in tensors}
    if len(set(names.values())) < len(names):
        raise ValueError("the checkpoint holds weights both with and without 'module.'")
    return {names[name]: value for name, value in tensors.items()}


def known_sources() -> tuple[Source, ...]:
    """All tables."""
    from .sources import convnext, openmmlab, stvit, swin

    return stvit.SOURCES + swin.SOURCES + convnext.SOURCES + openmmlab.SOURCES


def split_backbone(
    state_dict: Mapping[str, Tensor],
) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's prefix ('' where all is backbone), its part without prefix, the rest."""
    inner = {
        key[len(BACKBONE) :]: value for key, value in state_dict.items() if key.startswith(BACKBONE)
    }
    if not inner:
        return '', dict(state_dict), {}
    return BACKBONE, inner, {k: v for k, v in state_dict.items() if not k.startswith(BACKBONE)}


def find_source(state_dict: Mapping[str, Tensor]) -> Source | None:
    """The first table that recognises the backbone's keys, or None."""
    _, inner, _ = split_backbone(state_dict)
    return next((s for s in known_sources() if s.recognises(inner)), None)


def convert_state_dict(
    state_dict: Mapping[str, Tensor], source: Source | None = None
) -> Conversion:
    """Converts; every key must be accounted for.

    Args:
        state_dict: Names and tensors, unwrapped: of a backbone or classifier, or of a detector or
            segmentor with the backbone under ``backbone.``, whose other parts are kept.
        source: The table; None finds it by the keys.

    Raises:
        ValueError: If no table recognises the keys, a key has no rule, or two keys get the
            same name.
    """
    source = source or find_source(state_dict)
    if source is None:
        raise ValueError(
            f'unknown kind of checkpoint (keys such as '
            f'{", ".join(list(state_dict)[:3])}); known are: '
            + '; '.join(s.name for s in known_sources())
        )
    prefix, inner, others = split_backbone(state_dict)
    result = Conversion(source)
    unknown = []
    for key, value in inner.items():
        rule, match = next(
            ((rule, match) for rule in source.rules for match in [rule.match(key, inner)] if match),
            (None, None),
        )
        if rule is None:
            unknown.append(prefix + key)
        elif rule.target is None:
            result.dropped.append((prefix + key, rule.reason))
        else:
            target = match.expand(rule.target)
            if target in result.state_dict:
                raise ValueError(f'{prefix}{key}: another key was mapped to {target} already')
            value = value if rule.transform is None else rule.transform(value)
            result.state_dict[target] = value
            result.mapped.append((prefix + key, target))
    if unknown:
        raise ValueError(
            f'{source.name}: {len(unknown)} unknown key(s): '
            + ', '.join(unknown[:5])
            + (', ...' if len(unknown) > 5 else '')
        )
    for key, value in others.items():
        result.state_dict[key] = value
        result.mapped.append((key, key))
    # Files store whole storages: each tensor gets one of its own.
    result.state_dict = {
        key: torch.clone(value, memory_format=torch.contiguous_format)
        for key, value in result.state_dict.items()
    }
    return result
