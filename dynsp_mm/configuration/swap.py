"""Turns the config of a dense model into that of a sparse one."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ..backbones.sparse_backbone import is_dense, parse_keep_ratios
from ..errors import UserError

SWAPS = {
    'SwinTransformer': 'DynamicSwin',
    'SwinTransformerV2': 'DynamicSwinV2',
    'ConvNeXt': 'DynamicConvNeXt',
}
# What mmdet's and mmseg's Swin is without arguments. Ours is mmpretrain's then, with its rules for
# small maps, norms and frozen stages, and with the last stage as its output.
MMDET_DEFAULTS = dict(
    embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), out_indices=(0, 1, 2, 3)
)
# Relatives that cannot be swapped, and why.
UNLIKE = {
    'SimMIMSwinTransformer': 'it is pretrained on masked patches, whose mask its forward takes',
    'SparseConvNeXt': 'it is pretrained on masked patches, whose mask its forward takes',
}


def sparsify(cfg: Config, keep_ratios: float | Sequence[float]) -> dict[str, Any]:
    """Swaps, in place, the backbone of a loaded config for its sparse counterpart.

    The backbone keeps every argument; the sparse training hook and the import of this package are
    added where they are missing; with dense ratios the hook is taken out. With a backbone that is
    sparse already, only its ratios change.

    Args:
        cfg: Of a model of mmdet, mmseg or mmpretrain.
        keep_ratios: See ``DynamicSwin``.

    Returns:
        The entries that were set, as a config that inherits the original would give them.

    Raises:
        UserError: If there is no backbone that can be swapped, which the message names, or the
            ratios are out of range. The config is then as it was.
    """
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    kind = backbone.get('type') if isinstance(backbone, dict) else None
    if isinstance(kind, type):  # in a config of python objects
        kind = f'{kind.__module__.partition(".")[0]}.{kind.__name__}'
    if not isinstance(kind, str):
        raise UserError(
            f'{cfg.filename}: has no model.backbone with a type, so nothing can be '
            'made sparse (backbones elsewhere, as in model.detector, are not swapped)'
        )
    scope, _, name = kind.rpartition('.')
    changes: dict[str, Any] = dict(keep_ratios=keep_ratios)
    if name in SWAPS:
        changes['type'] = SWAPS[name]
        if name == 'SwinTransformer' and (scope or cfg.get('default_scope')) in ('mmdet', 'mmseg'):
            changes.update(
                (key, value) for key, value in MMDET_DEFAULTS.items() if key not in backbone
            )
    elif name not in SWAPS.values():
        why = f' ({UNLIKE[name]})' if name in UNLIKE else ''
        raise UserError(
            f'{cfg.filename}: model.backbone is a {kind}{why}; what can be '
            f'made sparse are {", ".join(SWAPS)}'
        )
    blocks = backbone.get('prune_blocks')
    parse_keep_ratios(keep_ratios, 1 if isinstance(blocks, int) else len(blocks or (1, 2, 3)))
    backbone.update(changes)
    result = dict(model=dict(backbone=changes))
    hooks = list(cfg.get('custom_hooks') or [])
    others = [hook for hook in hooks if hook.get('type') != 'SparseTrainingHook']
    if is_dense(keep_ratios):  # the hook refuses a model without predictors
        wanted = others
    else:
        wanted = (
            hooks if len(others) < len(hooks) else [*hooks, ConfigDict(type='SparseTrainingHook')]
        )
    if wanted != hooks:
        cfg.custom_hooks = result['custom_hooks'] = wanted
    imports = cfg.get('custom_imports') or dict(allow_failed_imports=False)
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if 'dynsp_mm' not in names:
        cfg.custom_imports = dict(imports, imports=[*names, 'dynsp_mm'])
        result['custom_imports'] = cfg.custom_imports
    return result


def parse_ratios(text: str) -> float | Sequence[float]:
    """Reads ``'0.7'`` or ``'0.7,0.5,0.3'``.

    Raises:
        UserError: For anything else.
    """
    try:
        ratios = tuple(float(part) for part in text.strip('()[] ').split(','))
    except ValueError:
        raise UserError(
            f'{text!r}: must be a number such as 0.7, or numbers with commas between '
            'them such as 0.7,0.5,0.3'
        ) from None
    return ratios[0] if len(ratios) == 1 else ratios
