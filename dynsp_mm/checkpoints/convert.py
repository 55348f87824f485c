"""Converts state dicts by tables of rules; a source is one table in a file of its own.

A converted dict has the layout of an OpenMMLab model: ``backbone.`` before the names of our
backbones, ``head.fc.`` for an ImageNet classifier, other modules of a detector as they were.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UserError
from .rules import BACKBONE, Conversion, Source
from .sources import known_sources

ENTRIES = ('state_dict', 'model', 'model_ema', 'ema_state_dict')


def unwrap(checkpoint: Any, entry: str | None = None) -> dict[str, Tensor]:
    """Takes the state dict out of its nesting and strips ``module.``.

    Args:
        checkpoint: What a file holds.
        entry: Where the weights are; None means the first of :data:`ENTRIES` that is there, or
            the top.

    Raises:
        UserError: If no non-empty mapping of names to tensors is found.
    """
    for key in (entry,) if entry else ENTRIES:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    else:
        if entry:
            raise UserError(f'the checkpoint has no entry {entry!r}')
        key = None
    tensors = dict(checkpoint) if isinstance(checkpoint, Mapping) else {}
    if key == 'ema_state_dict':
        tensors.pop('steps', None)  # a count beside the averaged weights
    if not tensors or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise UserError(
            'the checkpoint holds no state dict: expected names with tensors, at the '
            f'top or under one of {", ".join(map(repr, ENTRIES))}'
        )
    names = {name: name[7:] if name.startswith('module.') else name for name in tensors}
    if len(set(names.values())) < len(names):
        raise UserError("the checkpoint holds weights both with and without 'module.'")
    return {names[name]: value for name, value in tensors.items()}


def split_backbone(
    state_dict: Mapping[str, Tensor],
) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's prefix ('' where all is backbone), its entries without prefix, the rest."""
    inner = {
        key[len(BACKBONE) :]: value for key, value in state_dict.items() if key.startswith(BACKBONE)
    }
    if not inner:
        return '', dict(state_dict), {}
    return BACKBONE, inner, {k: v for k, v in state_dict.items() if not k.startswith(BACKBONE)}


def find_source(state_dict: Mapping[str, Tensor]) -> Source | None:
    """The source that recognises the backbone's keys, or None.

    Releases extend the names of official checkpoints: of several, the one that looks at most keys.
    """
    _, inner, _ = split_backbone(state_dict)
    found = [source for source in known_sources() if source.recognises(inner)]
    return max(found, key=lambda source: len(source.signature), default=None)


def convert_state_dict(
    state_dict: Mapping[str, Tensor], source: Source | None = None, model: nn.Module | None = None
) -> Conversion:
    """Converts; every key must be accounted for.

    Args:
        state_dict: Names and tensors, unwrapped: of a backbone or classifier, or of a detector or
            segmentor with the backbone under ``backbone.``, whose other parameters are kept.
        source: The program; None finds it by the keys.
        model: The backbone that will load them, whose names are known too.

    Raises:
        UserError: If no source recognises the keys, a key has no rule, or two keys get the
            same name.
    """
    source = source or find_source(state_dict)
    if source is None:
        raise UserError(
            f'unknown kind of checkpoint (keys such as '
            f'{", ".join(list(state_dict)[:3])}); known are: '
            + '; '.join(s.name for s in known_sources())
        )
    prefix, inner, others = split_backbone(state_dict)
    own = None if model is None else model.state_dict()
    result = Conversion(source)
    unknown = []
    for key in inner:
        change = source.change(key, inner, own)
        if change is None:
            unknown.append(prefix + key)
        elif change.name is None:
            result.dropped.append((prefix + key, change.reason))
        elif change.name in result.state_dict:
            raise UserError(f'{prefix}{key}: another key was mapped to {change.name} already')
        else:
            result.state_dict[change.name] = change.value
            result.mapped.append((prefix + key, change.name))
    if unknown:
        raise UserError(
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
