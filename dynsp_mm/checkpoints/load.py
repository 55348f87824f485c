"""Loading: read a file, find the program it comes from, convert, fit, load."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from torch import Tensor

from ..errors import UserError
from .convert import convert_state_dict, find_source, unwrap
from .files import read_checkpoint_anywhere
from .fit import FITTED, Fit, Repairs, fit_state_dict
from .rules import BACKBONE, Source


class OtherChannels(UserError):
    """Weights are for images of other channels than those of the model."""


def is_pretrained(init_cfg: Any) -> bool:
    """Whether a config, such as one in an ``init_cfg``, says to start from a checkpoint.

    Its type may be the name or the class of mmengine's initializer, with or without its scope.
    """
    kind = init_cfg.get('type') if isinstance(init_cfg, Mapping) else None
    name = PretrainedInit.__name__ if kind is PretrainedInit else str(kind).rpartition('.')[-1]
    return name in ('Pretrained', PretrainedInit.__name__)  # registered as, and called


def load_from_anywhere(checkpoint: str, map_location=None) -> dict[str, Any]:
    """What mmengine's runner loads: a whole model, other programs' names converted.

    No code from the file runs, unlike with mmengine's own readers. Not for resuming: logged values
    and configs in the file are left out.

    Args:
        checkpoint: Path, URL or URI as in :func:`load_pretrained`.
        map_location: Accepted for mmengine; tensors come to the CPU.

    Raises:
        UserError: If the file cannot be had or is no checkpoint.
    """
    loaded = read_checkpoint_anywhere(checkpoint)
    state_dict = unwrap(loaded)
    source = find_source(state_dict)
    if source is not None and not source.native:
        return dict(state_dict=convert_state_dict(state_dict, source).state_dict)
    return (
        {**loaded, 'state_dict': state_dict}
        if 'state_dict' in loaded
        else dict(state_dict=state_dict)
    )


def load_whole(
    model: nn.Module, state_dict: dict[str, Tensor], optional: Callable[[str], bool]
) -> None:
    """Loads a detector, segmentor or classifier, of which no needed parameter may be missing.

    Args:
        model: Model that takes what is in ``state_dict`` under its names.
        state_dict: Names and tensors of the whole model.
        optional: Function that says of a parameter's name whether it may be missing.

    Raises:
        OtherChannels: If they are for images of other channels.
        UserError: If a tensor has another size or a parameter is missing.
    """
    kind = type(model).__name__
    try:
        missing = model.load_state_dict(state_dict, strict=False).missing_keys
    except RuntimeError as error:  # lists each tensor of another size
        lines = [line.strip() for line in str(error).splitlines() if 'size mismatch' in line]
        if not lines:
            raise
        raise UserError(
            f'{len(lines)} tensors have another size in this {kind}: {lines[0]} is '
            'it a checkpoint of another model, or for other classes?'
        ) from error
    parameters = dict(model.named_parameters())
    lacking = [key for key in missing if key in parameters and not optional(key)]
    # A backbone takes a stem out that is for images of other channels.
    unfit = [key for key in lacking if key in state_dict]
    if unfit:
        raise OtherChannels(
            f'{unfit[0]} has shape {tuple(state_dict[unfit[0]].shape)}, this {kind} needs '
            f'{tuple(parameters[unfit[0]].shape)}: it is for images of other channels'
        )
    if lacking:
        raise UserError(
            f'{len(lacking)} tensors that this {kind} needs are not there, such as '
            f'{lacking[0]}; is it a checkpoint of another model?'
        )


def load_pretrained(
    model: nn.Module, checkpoint: str, prefix: str | None = None, name: str = 'init_cfg.checkpoint'
) -> None:
    """Loads a backbone's pretrained weights, converting other programs' names.

    No code from the file runs.

    Args:
        model: The backbone.
        checkpoint: Path, URL, or a URI that mmengine's file backends take.
        prefix: Where the backbone's names begin in the file; None looks for ``'backbone.'``.
        name: Name of the argument, for messages.

    Raises:
        UserError: If the file cannot be had, is no checkpoint, or holds no weights for this
            backbone, such as those of another architecture.
    """
    try:
        state_dict = unwrap(read_checkpoint_anywhere(checkpoint))
    except ValueError as error:
        hint = ''
        if name.startswith('init_cfg'):
            hint = (
                '; name a file: --cfg-options model.backbone.init_cfg.checkpoint=FILE, or '
                'start from scratch with model.backbone.init_cfg=None'
            )
        raise UserError(f'{name}={checkpoint!r} cannot be loaded ({error}){hint}') from error
    try:
        state_dict = _below(prefix, state_dict)
        source = find_source(state_dict)
        if source is not None:
            state_dict = convert_state_dict(state_dict, source, model).backbone
        fit = fit_state_dict(state_dict, model)
    except ValueError as error:
        raise UserError(f'{name}={checkpoint!r}: {error}') from error
    load_fitted(model, fit)
    print_log(f'{type(model).__name__}: {_summary(fit, checkpoint, source)}', 'current')
    warn_of_stems(model, fit.repairs)


def warn_of_stems(model: nn.Module, repairs: Repairs) -> None:
    """Says which stem is not what the file holds, which may be for images of other channels."""
    for note in repairs.notes():
        print_log(f'{type(model).__name__}: {note}', 'current', logging.WARNING)


def load_fitted(model: nn.Module, fit: Fit) -> None:
    """Loads what was fitted to the model, which then repairs nothing again."""
    state_dict = OrderedDict(fit.state_dict)
    state_dict._metadata = {'': {FITTED: True}}
    model.load_state_dict(state_dict, strict=False)


def _below(prefix: str | None, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries below a prefix, without it; all for None.

    'backbone.', which configs of the libraries name, also does for files without it.
    """
    if not prefix:
        return state_dict
    prefix = prefix.rstrip('.') + '.'
    below = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    if not below and prefix != BACKBONE:
        raise UserError(f'nothing under the prefix {prefix!r}')
    return below or state_dict


def _summary(fit: Fit, checkpoint: str, source: Source | None) -> str:
    text = f'loaded {len(fit.state_dict) - len(fit.unused)} tensors from {checkpoint}'
    if source:
        text += f' ({source.name})'
    absent = len(fit.new) - len(fit.repairs.new)
    if absent:
        text += f'; {absent} tensors that its network does not have start new'
    if fit.repairs.resized:
        first, *others = fit.repairs.resized
        text += f'; interpolated from another size: {first}'
        text += f' and {len(others)} more' if others else ''
    if fit.missing:
        text += f'; not in the file: {", ".join(fit.missing)}'
    if fit.unused:
        text += f'; not used: {", ".join(fit.unused)}'
    return text
