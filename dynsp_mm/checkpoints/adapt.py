"""Loading into one of our backbones: small repairs that any state dict may need."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn as nn
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from .arch import find_arch
from .convert import BACKBONE, convert_state_dict, find_source, unwrap
from .files import read_checkpoint_anywhere

# Buffers of other implementations that ours derives anew.
DERIVED = ('relative_position_index', 'relative_coords_table', 'attn_mask')
# Parts that a file may lack as a whole, because the network it comes from has none.
NEW_PARTS = {
    'fast and slow paths': r'token_predictors\.|.*\.fast_(path\.|gamma$)',
    'layer scales': r'.*\.layer_scale_[12]$',
    'response norms': r'.*\.grn\.',
    'semantic_token2': r'.*\.semantic_token2$',
}


def adapt_state_dict(
    state_dict: dict[str, Tensor], prefix: str, model: nn.Module
) -> dict[str, list[str]]:
    """Repairs, in place, the entries below ``prefix`` so that ``model`` takes them.

    Derived buffers are dropped; ``norm`` of old classifiers becomes the norm of the last stage;
    position bias tables, position embeddings and ``semantic_token2`` of another size are
    interpolated; weights of 1x1 convolutions become those of linear layers; ``qkv`` of a dense
    block is split where the model has queries of their own.

    Args:
        state_dict: Names and tensors.
        prefix: Where the model's names begin, such as ``'backbone.'``.
        model: The backbone that will load them.

    Returns:
        For each name that was split or renamed among semantic tokens, the new names.
    """
    own = model.state_dict()
    split: dict[str, list[str]] = {}
    last_norm = f'norm{len(model.depths) - 1}.'
    for key in [k for k in state_dict if k.startswith(prefix)]:
        name = key[len(prefix) :]
        if name.rsplit('.', 1)[-1] in DERIVED:
            del state_dict[key]
            continue
        if name.startswith('norm.') and last_norm + name[5:] in own:
            name = last_norm + name[5:]
            state_dict[prefix + name] = state_dict.pop(key)
        if name not in own:
            new = _split_attention(name, state_dict[prefix + name], own)
            if new:
                del state_dict[prefix + name]
                state_dict.update({prefix + key: value for key, value in new.items()})
                split[name] = list(new)
            continue
        value, shape = state_dict[prefix + name], own[name].shape
        if value.shape == shape:
            continue
        if name.endswith('relative_position_bias_table') and value.shape[1:] == shape[1:]:
            value = _resize_square(value[None], shape[0])[0]
        elif name.endswith('semantic_token2') and value.dim() == 3 and value.shape[2] == shape[2]:
            value = _resize_square(value, shape[1])
        elif name == 'absolute_pos_embed' and value.dim() == 3 and value.shape[2] == shape[2]:
            value = _resize_square(value, shape[1], model.patch_resolution)
        elif value.dim() == 4 and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        state_dict[prefix + name] = value
    return split


def _split_attention(name: str, value: Tensor, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """An entry of a dense block's attention for a block with ``attn.q``; empty if it is none.

    Position bias tables are not used: blocks among semantic tokens have none.
    """
    block, found, entry = name.partition('.attn.w_msa.')
    if not found or f'{block}.attn.q.weight' not in own:
        return {}
    if entry.startswith('qkv.'):
        width = value.shape[0] // 3
        return {
            f'{block}.attn.q.{entry[4:]}': value[:width],
            f'{block}.attn.kv.{entry[4:]}': value[width:],
        }
    return {f'{block}.attn.{entry}': value} if entry.startswith('proj.') else {}


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
        new: Names of the model's parts that the file's network does not have; they start new.
        missing: Other names that the model has and the file has not: output norms, stems.
        unused: Names that the model has not.
        split: Names of the file -> names of the model, where they differ.
    """

    state_dict: dict[str, Tensor]
    new: list[str]
    missing: list[str]
    unused: list[str]
    split: dict[str, list[str]]


def fit_state_dict(state_dict: dict[str, Tensor], model: nn.Module) -> Fit:
    """Adapts a backbone's state dict to a model and compares the two.

    Args:
        state_dict: Names and tensors without prefix; not modified.
        model: One of our backbones.

    Raises:
        ValueError: If they are of another architecture, a weight has another shape, or a weight
            of a block is missing.
    """
    state_dict = dict(state_dict)
    kind = type(model).__name__
    own = model.state_dict()
    theirs, ours = find_arch(state_dict), find_arch(own)
    split = adapt_state_dict(state_dict, '', model)
    this = f'this {kind} ({ours.name})'
    if not set(own) & set(state_dict):
        raise ValueError(f'no weights for {this}' + (f', but for {theirs.name}' if theirs else ''))
    differences = theirs.differences(ours) if theirs else []
    if differences:
        raise ValueError(
            f'a checkpoint of {theirs.name}, another arch than {this}: ' + ', '.join(differences)
        )
    missing = [name for name in own if name not in state_dict]
    absent = [
        pattern
        for kind, pattern in NEW_PARTS.items()
        if not any(re.match(pattern, name) for name in state_dict)
    ]
    new = [name for name in missing if any(re.match(pattern, name) for pattern in absent)]
    fit = Fit(
        state_dict,
        new,
        [name for name in missing if name not in new],
        [name for name in state_dict if name not in own],
        split,
    )
    for name, value in own.items():
        if name in state_dict and state_dict[name].shape != value.shape:
            raise ValueError(
                f'{name} has shape {tuple(state_dict[name].shape)}, {this} needs '
                f'{tuple(value.shape)}'
            )
    # Output norms may be missing, and where another stem is there, the stem.
    another_stem = theirs is not None and theirs.family != ours.family
    parts = ('stages.', 'downsample_layers.', 'token_predictors.') + (
        () if another_stem else ('patch_embed.',)
    )
    lacking = [
        name
        for name in fit.missing
        if name.startswith(parts) and not name.endswith('.num_batches_tracked')
    ]
    if ours.family == 'STViT-R Swin' and not another_stem:  # its files always hold these
        lacking += [name for name in fit.new if name.endswith(('layer_scale_1', 'layer_scale_2'))]
    if lacking:
        raise ValueError(
            f'{len(lacking)} tensors that {this} needs are not there, such as '
            f'{lacking[0]}; is the checkpoint complete?'
        )
    return fit


def _below(prefix: str | None, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries below a prefix, without it; all for None.

    'backbone.', which configs of the libraries name, also does for files without it.
    """
    if not prefix:
        return state_dict
    prefix = prefix.rstrip('.') + '.'
    below = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    if not below and prefix != BACKBONE:
        raise ValueError(f'nothing under the prefix {prefix!r}')
    return below or state_dict


def load_from_anywhere(checkpoint: str, map_location=None) -> dict[str, Any]:
    """What mmengine's runner loads: a whole model, other programs' names converted.

    No code from the file runs, unlike with mmengine's own readers. Not for resuming: logged values
    and configs in the file are left out.

    Args:
        checkpoint: As in :func:`load_pretrained`.
        map_location: Accepted for mmengine; tensors come to the CPU.

    Raises:
        ValueError: If the file cannot be had or is no checkpoint.
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
        model: Takes what is in ``state_dict`` under its names.
        state_dict: Of the whole model.
        optional: Says of a parameter's name whether it may be missing.

    Raises:
        ValueError: If a tensor has another size or a parameter is missing.
    """
    kind = type(model).__name__
    try:
        missing = model.load_state_dict(state_dict, strict=False).missing_keys
    except RuntimeError as error:  # lists each tensor of another size
        lines = [line.strip() for line in str(error).splitlines() if 'size mismatch' in line]
        if not lines:
            raise
        raise ValueError(
            f'{len(lines)} tensors have another size in this {kind}: {lines[0]} is '
            'it a checkpoint of another model, or for other classes?'
        ) from error
    parameters = dict(model.named_parameters())
    lacking = [key for key in missing if key in parameters and not optional(key)]
    if lacking:
        raise ValueError(
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
        name: Of the argument, for messages.

    Raises:
        ValueError: If the file cannot be had, is no checkpoint, or holds no weights for this
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
        raise ValueError(f'{name}={checkpoint!r} cannot be loaded ({error}){hint}') from error
    try:
        state_dict = _below(prefix, state_dict)
        source = find_source(state_dict)
        if source is not None:
            state_dict = convert_state_dict(state_dict, source).backbone
        fit = fit_state_dict(state_dict, model)
    except ValueError as error:
        raise ValueError(f'{name}={checkpoint!r}: {error}') from error
    model.load_state_dict(fit.state_dict, strict=False)
    print_log(
        f'{type(model).__name__}: loaded {len(fit.state_dict) - len(fit.unused)} tensors '
        f'from {checkpoint}'
        + (f' ({source.name})' if source else '')
        + (
            f'; {len(fit.new)} tensors of parts that its network does not have start new'
            if fit.new
            else ''
        )
        + (f'; not in the file: {", ".join(fit.missing)}' if fit.missing else '')
        + (f'; not used: {", ".join(fit.unused)}' if fit.unused else ''),
        'current',
    )
