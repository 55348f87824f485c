"""Fits a state dict to one of our backbones: small repairs that any may need, and what is left."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .. import families
from ..errors import UserError
from ..families import Family
from .arch import Arch, find_arch, last_norm
from .sources import known_programs

# Entry of a state dict's metadata, which torch hands on when it loads: nothing is left to repair.
FITTED = 'dynsp_mm_fitted'
RGB = 3  # channels of the images that published networks take
TABLE = 'relative_position_bias_table'


class Repairs(NamedTuple):
    """What :func:`adapt_state_dict` did that its caller may want to say.

    Attributes:
        split: For each name that was split or renamed among semantic tokens, the new names.
        resized: Names of position tables that were interpolated from another size.
        summed: Stem, of which the kernels for red, green and blue were summed for grey images.
        new: Stem for images of another number of channels, which was taken out and starts new ->
            the number in the file and in the model.
        fitting: Names of tables of relative positions that were not interpolated.
    """

    split: dict[str, list[str]]
    resized: list[str]
    summed: list[str]
    new: dict[str, tuple[int, int]]
    fitting: list[str]

    def notes(self) -> list[str]:
        """A sentence for each stem that is not what the file holds, and on windows of stages."""
        tables = [name for name in self.resized if name.endswith(TABLE)]
        notes = [
            f'{name} is new and not trained: it is for images of {theirs} channels in the file and '
            f'of in_channels={ours} here'
            for name, (theirs, ours) in self.new.items()
        ]
        notes += [
            f'{name} is the sum of the kernels for red, green and blue, for in_channels=1'
            for name in self.summed
        ]
        if tables and self.fitting:
            notes.append(
                f'{tables[0]} is of windows of another size and was interpolated, as were '
                f'{len(tables)} tables and {len(self.fitting)} were not: windows of that network '
                'differ between stages; set window_size for each stage'
            )
        return notes


def adapt_state_dict(state_dict: dict[str, Tensor], prefix: str, model: nn.Module) -> Repairs:
    """Repairs, in place, the entries below ``prefix`` so that ``model`` takes them.

    Derived buffers are dropped; ``norm`` of old classifiers becomes the norm of the last stage;
    what the family's card names, such as position bias tables, is interpolated from another size,
    and tensors of a relative are split; weights of 1x1 convolutions become those of linear
    layers. The kernels of a stem for RGB images are summed for images of one channel, which gives
    what the grey image, repeated three times, would give; a stem for another number of channels
    is taken out. Nothing happens to a state dict that was fitted to the model, see
    :func:`~dynsp_mm.checkpoints.load.load_fitted`.

    Args:
        state_dict: Names and tensors.
        prefix: Where the model's names begin, such as ``'backbone.'``.
        model: The backbone that will load them.
    """
    repairs = Repairs({}, [], [], {}, [])
    if FITTED in getattr(state_dict, '_metadata', {}).get('', {}):
        return repairs
    own = model.state_dict()
    card = families.of(model) or families.named_like(own)
    if card is None:
        return repairs
    for key in [k for k in state_dict if k.startswith(prefix)]:
        name = key[len(prefix) :]
        if any(re.fullmatch(pattern, name) for pattern in card.names.dropped):
            del state_dict[key]
            continue
        if name not in own:
            renamed = last_norm(card, name, own)
            if renamed != name and renamed in own:
                name = renamed
                state_dict[prefix + name] = state_dict.pop(key)
            else:
                new = _split(card, name, state_dict[key], own)
                if new:
                    del state_dict[key]
                    state_dict.update({prefix + k: value for k, value in new.items()})
                    repairs.split[name] = list(new)
                continue
        value, shape = state_dict[prefix + name], own[name].shape
        if value.shape == shape:
            if name.endswith(TABLE):
                repairs.fitting.append(name)
            continue
        if name == card.names.image_weight and _same_but_channels(value.shape, shape):
            if (value.shape[1], shape[1]) == (RGB, 1):
                state_dict[prefix + name] = value.sum(1, keepdim=True)
                repairs.summed.append(name)
            else:
                del state_dict[prefix + name]
                repairs.new[name] = (value.shape[1], shape[1])
            continue
        resized = _resized(card, name, value, shape, model)
        if resized is not None:
            repairs.resized.append(name)
            value = resized
        elif value.dim() == 4 and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        state_dict[prefix + name] = value
    return repairs


def _same_but_channels(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Whether two shapes of a convolution differ in input channels alone."""
    return (
        len(theirs) == len(ours) == 4
        and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:])
        and theirs[1] != ours[1]
    )


def _split(card: Family, name: str, value: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A relative's entry under the model's names; empty if it goes into none of those."""
    for rule in card.names.splits:
        match = re.fullmatch(rule.pattern, name)
        into = [match.expand(template) for template in rule.into] if match else []
        if into and all(target in own for target in into):
            unit = value.shape[0] // sum(rule.shares)
            return dict(zip(into, value.split([unit * share for share in rule.shares])))
    return {}


def _resized(
    card: Family, name: str, value: Tensor, shape: tuple[int, ...], model: nn.Module
) -> Tensor | None:
    """The tensor interpolated to the model's shape; None where no rule of the card does that."""
    how = next((h for p, h in card.names.resized.items() if re.fullmatch(p, name)), None)
    if how == 'table' and value.shape[1:] == shape[1:]:
        return _resize_square(value[None], shape[0])[0]
    if how in ('tokens', 'positions') and value.dim() == 3 and value.shape[2] == shape[2]:
        size = model.patch_resolution if how == 'positions' else None
        return _resize_square(value, shape[1], size)
    return None


def _resize_square(x: Tensor, length: int, size: tuple[int, int] | None = None) -> Tensor:
    """Interpolates (1, S * S, C) to (1, length, C), bicubic, as mmdet does."""
    side = round(x.shape[1] ** 0.5)
    if side * side != x.shape[1]:
        return x  # not a square grid: loading reports the mismatch
    size = size or (round(length**0.5),) * 2
    grid = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return F.interpolate(grid, size=size, mode='bicubic').flatten(2).transpose(1, 2)


class Fit(NamedTuple):
    """How a state dict fits a backbone.

    Attributes:
        state_dict: The adapted entries.
        new: Names of the model that the file's network does not have, and a stem that the file
            has for images of another number of channels; they start new.
        missing: Other names that the model has and the file has not: output norms, stems.
        unused: Names that the model has not.
        repairs: What was changed in the entries.
    """

    state_dict: dict[str, Tensor]
    new: list[str]
    missing: list[str]
    unused: list[str]
    repairs: Repairs

    @property
    def split(self) -> dict[str, list[str]]:
        """Names of the file -> names of the model, where they differ."""
        return self.repairs.split


def fit_state_dict(state_dict: dict[str, Tensor], model: nn.Module) -> Fit:
    """Adapts a backbone's state dict to a model and compares the two.

    Args:
        state_dict: Names and tensors without prefix; not modified.
        model: One of our backbones.

    Raises:
        UserError: If they are of another architecture, a weight has another shape, or a weight
            of a block is missing.
    """
    state_dict = dict(state_dict)
    own = model.state_dict()
    theirs, ours = find_arch(state_dict), find_arch(own)
    repairs = adapt_state_dict(state_dict, '', model)
    this = f'this {type(model).__name__}' + (f' ({ours.name})' if ours else '')
    common = set(own) & set(state_dict)
    if ours and not theirs:  # many networks have a last norm, which was renamed
        names = ours.card.names
        common = {name for name in common if name.startswith(names.needed + names.stem_names)}
    if not common:
        but = f', but for {theirs.name}' if theirs else _other_kind(state_dict)
        raise UserError(f'no weights for {this}{but}')
    differences = theirs.differences(ours) if theirs and ours else []
    if differences:
        raise UserError(
            f'a checkpoint of {theirs.name}, another arch than {this}: ' + ', '.join(differences)
        )
    for name, value in own.items():
        if name in state_dict and state_dict[name].shape != value.shape:
            raise UserError(
                f'{name} has shape {tuple(state_dict[name].shape)}, {this} needs '
                f'{tuple(value.shape)}'
            )
    missing = [name for name in own if name not in state_dict and name not in repairs.new]
    new, lacking = _missing(missing, state_dict, theirs, ours)
    if lacking:
        settings = _other_settings(state_dict, own, ours)
        raise UserError(
            f'{len(lacking)} tensors that {this} needs are not there, such as {lacking[0]}; '
            + (
                f'the file is of a network with {settings}; set these in the backbone'
                if settings
                else 'is the checkpoint complete?'
            )
        )
    return Fit(
        state_dict,
        new + list(repairs.new),
        [name for name in missing if name not in new],
        [name for name in state_dict if name not in own],
        repairs,
    )


def _other_kind(state_dict: Mapping[str, Tensor]) -> str:
    shown = ', '.join(list(state_dict)[:3])
    return (
        f'; the file is of another kind of network (names such as {shown}); known are names of '
        f'{known_programs()}'
    )


def _other_settings(
    state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor], ours: Arch | None
) -> str:
    """Arguments that the names of a file tell and that those of a model contradict."""
    settings = {}
    for told in ours.card.names.told if ours else ():
        theirs, here = (
            any(re.fullmatch(told.pattern, name) for name in names) for names in (state_dict, own)
        )
        if theirs != here:
            settings.update(told.present if theirs else told.absent)
    return ', '.join(f'{key}={value}' for key, value in settings.items())


def _missing(
    missing: list[str], state_dict: Mapping[str, Tensor], theirs: Arch | None, ours: Arch | None
) -> tuple[list[str], list[str]]:
    """Of the names that a file has not: those that start new, and those that it must not lack."""
    if ours is None:
        return [], []
    names = ours.card.names
    relative = theirs is not None and theirs.is_relative_of(ours)
    may_lack = names.may_lack + (names.relatives_lack if relative else ())
    absent = [
        pattern for pattern in may_lack if not any(re.match(pattern, name) for name in state_dict)
    ]
    new = [name for name in missing if any(re.match(pattern, name) for pattern in absent)]
    # Output norms may be missing, and where a relative has another stem, the stem.
    needed = names.needed + (() if relative else names.stem_names)
    lacking = [
        name
        for name in missing
        if name not in new and name.startswith(needed) and not name.endswith('.num_batches_tracked')
    ]
    return new, lacking
