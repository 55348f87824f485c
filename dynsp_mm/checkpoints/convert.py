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
from .files import ENTRIES
from .rules import BACKBONE, Conversion, Source
from .sources import known_programs, known_sources

# What trainers and wrappers put before all names of a model.
WRAPPERS = ('module.', '_orig_mod.', 'model.', 'timm_model.')


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


def wrapper_of(state_dict: Mapping[str, Tensor]) -> str:
    """What stands before all names for a trainer or a wrapper, such as 'model.'; '' for nothing."""
    found = ''
    while True:
        more = next(
            (w for w in WRAPPERS if all(key.startswith(found + w) for key in state_dict)), None
        )
        if more is None or not state_dict:
            return found
        found += more


def split_backbone(
    state_dict: Mapping[str, Tensor],
) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's prefix ('' where all is backbone), its entries without prefix, the rest.

    Names of trainers and wrappers around the model or the backbone belong to the prefix.
    """
    prefix = wrapper_of(state_dict)
    if any(key.startswith(prefix + BACKBONE) for key in state_dict):
        prefix += BACKBONE
    inner = {
        key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
    }
    others = {key: value for key, value in state_dict.items() if not key.startswith(prefix)}
    wrapper = wrapper_of(inner)
    return prefix + wrapper, {key[len(wrapper) :]: v for key, v in inner.items()}, others


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
        UserError: If no source recognises the keys, or one whose checkpoints are not taken does, a
            key has no rule, or two keys get the same name.
    """
    source = source or find_source(state_dict)
    if source is None:
        raise UserError(
            f'unknown kind of checkpoint (keys such as '
            f'{", ".join(list(state_dict)[:3])}); known are: {known_programs()}'
        )
    if source.refusal:
        raise UserError(f'names of {source.name}, which are not known: {source.refusal}')
    prefix, inner, others = split_backbone(state_dict)
    own = None if model is None else model.state_dict()
    result = Conversion(source)
    unknown = []
    for key in inner:
        changes = source.changes(key, inner, own)
        if not changes:
            unknown.append(prefix + key)
        for change in changes:
            if change.name is None:
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
    wrapper = wrapper_of(state_dict)
    for key, value in others.items():
        result.state_dict[key[len(wrapper) :]] = value
        result.mapped.append((key, key[len(wrapper) :]))
    # Files store whole storages: each tensor gets one of its own.
    result.state_dict = {
        key: torch.clone(value, memory_format=torch.contiguous_format)
        for key, value in result.state_dict.items()
    }
    return result
