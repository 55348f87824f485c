"""Converts state dicts by tables of rules; a source is one table in a file of its own.

A converted dict has the layout of an mmpretrain classifier: ``backbone.`` before the names of
our backbones, ``head.fc.`` for the classifier.
"""
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """What becomes of the keys that ``pattern`` matches in full.

    Args:
        pattern: Regular expression.
        target: Template of the new name (``\\1`` etc.), or None when the key is dropped.
        reason: Why a dropped key is not needed.
        transform: Applied to the tensor.
    """
    pattern: str
    target: Optional[str]
    reason: str = ''
    transform: Optional[Callable[[Tensor], Tensor]] = None


@dataclass(frozen=True)
class Source:
    """A program whose checkpoints are understood.

    Args:
        name: For messages.
        signature: Regular expressions; each must match the start of some key.
        rules: Tried in order; the first that matches a key in full decides.
    """
    name: str
    signature: Tuple[str, ...]
    rules: Tuple[Rule, ...]

    def recognises(self, state_dict: Mapping[str, Tensor]) -> bool:
        return all(any(re.match(s, key) for key in state_dict) for s in self.signature)


@dataclass
class Conversion:
    """Result of a conversion; every key of the source is in ``mapped`` or ``dropped``."""
    source: str
    state_dict: Dict[str, Tensor] = field(default_factory=dict)
    mapped: List[Tuple[str, str]] = field(default_factory=list)
    dropped: List[Tuple[str, str]] = field(default_factory=list)


def unwrap(checkpoint: Any) -> Dict[str, Tensor]:
    """Takes the state dict out of its nesting and strips ``module.``.

    Raises:
        ValueError: If no non-empty mapping of names to tensors is found.
    """
    for key in ('state_dict', 'model', 'model_ema'):
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, Mapping) or not checkpoint \
            or not all(isinstance(k, str) and isinstance(v, Tensor)
                       for k, v in checkpoint.items()):
        raise ValueError('the checkpoint holds no state dict: expected names with tensors, at the '
                         "top or under 'state_dict', 'model' or 'model_ema'")
    return {key[7:] if key.startswith('module.') else key: value
            for key, value in checkpoint.items()}


def known_sources() -> Tuple[Source, ...]:
    """All tables."""
    from . import convnext, swin
    return swin.SOURCES + convnext.SOURCES


def find_source(state_dict: Mapping[str, Tensor]) -> Optional[Source]:
    """The first table that recognises the keys, or None."""
    return next((s for s in known_sources() if s.recognises(state_dict)), None)


def convert_state_dict(state_dict: Mapping[str, Tensor],
                       source: Optional[Source] = None) -> Conversion:
    """Converts; every key must be accounted for.

    Args:
        state_dict: Names and tensors, unwrapped.
        source: The table; None finds it by the keys.

    Raises:
        ValueError: If no table recognises the keys, a key has no rule, or two keys get the
            same name.
    """
    source = source or find_source(state_dict)
    if source is None:
        some = ', '.join(list(state_dict)[:3])
        raise ValueError(f'unknown kind of checkpoint (keys such as {some}); known are: '
                         + '; '.join(s.name for s in known_sources())
                         + ('. It has the names of OpenMMLab already: nothing to convert'
                            if any(k.startswith('backbone.') for k in state_dict) else ''))
    result = Conversion(source.name)
    unknown = []
    for key, value in state_dict.items():
        rule = next((r for r in source.rules if re.fullmatch(r.pattern, key)), None)
        if rule is None:
            unknown.append(key)
        elif rule.target is None:
            result.dropped.append((key, rule.reason))
        else:
            target = re.fullmatch(rule.pattern, key).expand(rule.target)
            if target in result.state_dict:
                raise ValueError(f'{key}: another key was mapped to {target} already')
            value = value if rule.transform is None else rule.transform(value)
            result.state_dict[target] = torch.clone(value, memory_format=torch.contiguous_format)
            result.mapped.append((key, target))
    if unknown:
        raise ValueError(f'{source.name}: {len(unknown)} unknown key(s): '
                         + ', '.join(unknown[:5]) + (', ...' if len(unknown) > 5 else ''))
    return result
