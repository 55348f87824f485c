"""Loading into one of our backbones: small repairs that any state dict may need."""
from typing import Dict, Optional

import torch.nn as nn
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from .convert import convert_state_dict, find_source, unwrap

# Buffers of other implementations that ours derives anew.
DERIVED = ('relative_position_index', 'attn_mask')
# Part of a sparse model that no dense checkpoint has.
NEW_PARTS = ('token_predictors.', '.fast_path.', '.fast_gamma')


def adapt_state_dict(state_dict: Dict[str, Tensor], prefix: str, model: nn.Module) -> None:
    """Repairs, in place, the entries below ``prefix`` so that ``model`` takes them.

    Derived buffers are dropped; ``norm`` of old classifiers becomes the norm of the last stage;
    position bias tables and position embeddings of another size are interpolated; weights of
    1x1 convolutions become those of linear layers.

    Args:
        state_dict: Names and tensors.
        prefix: Where the model's names begin, such as ``'backbone.'``.
        model: The backbone that will load them.
    """
    own = model.state_dict()
    last_norm = f'norm{len(model.depths) - 1}.'
    for key in [k for k in state_dict if k.startswith(prefix)]:
        name = key[len(prefix):]
        if name.rsplit('.', 1)[-1] in DERIVED:
            del state_dict[key]
            continue
        if name.startswith('norm.') and last_norm + name[5:] in own:
            name = last_norm + name[5:]
            state_dict[prefix + name] = state_dict.pop(key)
        if name not in own:
            continue
        value, shape = state_dict[prefix + name], own[name].shape
        if value.shape == shape:
            continue
        if name.endswith('relative_position_bias_table') and value.shape[1:] == shape[1:]:
            value = _resize_square(value[None], shape[0])[0]
        elif name == 'absolute_pos_embed' and value.dim() == 3 and value.shape[2] == shape[2]:
            value = _resize_square(value, shape[1], model.patch_resolution)
        elif value.dim() == 4 and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        state_dict[prefix + name] = value


def _resize_square(x: Tensor, length: int, size=None) -> Tensor:
    """Interpolates (1, S * S, C) to (1, length, C), bicubic, as mmdet does."""
    side = round(x.shape[1]**0.5)
    if side * side != x.shape[1]:
        return x  # not a square grid: loading reports the mismatch
    size = size or (round(length**0.5), ) * 2
    grid = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return F.interpolate(grid, size=size, mode='bicubic').flatten(2).transpose(1, 2)


def load_pretrained(model: nn.Module, checkpoint: str, prefix: Optional[str] = None) -> None:
    """Loads a backbone's pretrained weights, converting other programs' names.

    Args:
        model: The backbone.
        checkpoint: Path or URL, in any form that mmengine's loader takes.
        prefix: Where the backbone's names begin in the file; None looks for ``'backbone.'``.

    Raises:
        ValueError: If the file cannot be had, holds no weights for this backbone, or weights of
            another shape.
    """
    try:
        loaded = CheckpointLoader.load_checkpoint(
            checkpoint, map_location='cpu', logger='current')
    except OSError as error:  # missing, or no network
        raise ValueError(f'init_cfg.checkpoint={checkpoint!r} cannot be loaded ({error}); name a '
                         'file: --cfg-options model.backbone.init_cfg.checkpoint=FILE, or start '
                         'from scratch with model.backbone.init_cfg=None') from error
    state_dict = unwrap(loaded)
    source = find_source(state_dict)
    if source is not None:
        state_dict, prefix = convert_state_dict(state_dict, source).state_dict, 'backbone.'
    elif prefix is None:
        prefix = 'backbone.' if any(k.startswith('backbone.') for k in state_dict) else ''
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    state_dict = {k[len(prefix):]: v for k, v in state_dict.items() if k.startswith(prefix)}
    adapt_state_dict(state_dict, '', model)
    own = model.state_dict()
    if not set(own) & set(state_dict):
        raise ValueError(f'{checkpoint}: no weights for {type(model).__name__} under the prefix '
                         f'{prefix!r}')
    for name in sorted(set(own) & set(state_dict)):
        if own[name].shape != state_dict[name].shape:
            raise ValueError(f'{checkpoint}: {name} has shape {tuple(state_dict[name].shape)}, '
                             f'this {type(model).__name__} needs {tuple(own[name].shape)}; '
                             'is it a checkpoint of another arch?')
    missing, unexpected = model.load_state_dict(state_dict, strict=False)
    new = [name for name in missing if any(part in name for part in NEW_PARTS)]
    # Output norms are new in dense prediction, and classifiers lack those of early stages.
    other = [name for name in missing if name not in new]
    print_log(f'{type(model).__name__}: loaded {len(state_dict) - len(unexpected)} tensors from '
              f'{checkpoint}' + (f' ({source.name})' if source else '')
              + (f'; {len(new)} tensors of predictors and fast paths start new' if new else '')
              + (f'; not in the file: {", ".join(other)}' if other else '')
              + (f'; not used: {", ".join(unexpected)}' if unexpected else ''), 'current')
