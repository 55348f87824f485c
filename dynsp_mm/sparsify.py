"""Turns the config of a dense model into that of a sparse one."""
from typing import Any, Dict, Sequence, Union

from mmengine.config import Config, ConfigDict

from .backbones.sparse_backbone import is_dense, parse_keep_ratios

SWAPS = {'SwinTransformer': 'DynamicSwin', 'SwinTransformerV2': 'DynamicSwinV2',
         'ConvNeXt': 'DynamicConvNeXt'}
# Relatives that cannot be swapped, and why.
UNLIKE = {
    'SimMIMSwinTransformer': 'it is pretrained on masked patches, whose mask its forward takes',
    'SparseConvNeXt': 'it is pretrained on masked patches, whose mask its forward takes',
}


def sparsify(cfg: Config, keep_ratios: Union[float, Sequence[float]]) -> Dict[str, Any]:
    """Swaps, in place, the backbone of a loaded config for its sparse counterpart.

    The backbone keeps every argument; the sparse training hook and the import of this package are
    added where they are missing. With a backbone that is sparse already, only its ratios change.

    Args:
        cfg: Of a model of mmdet, mmseg or mmpretrain.
        keep_ratios: See ``DynamicSwin``.

    Returns:
        The entries that were set, as a config that inherits the original would give them.

    Raises:
        ValueError: If there is no backbone that can be swapped, which the message names, or the
            ratios are out of range. The config is then as it was.
    """
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    if not isinstance(backbone, dict) or not isinstance(backbone.get('type'), str):
        raise ValueError(f'{cfg.filename}: has no model.backbone with a type, so nothing can be '
                         'made sparse')
    scope, _, name = backbone.type.rpartition('.')
    changes: Dict[str, Any] = dict(keep_ratios=keep_ratios)
    if name in SWAPS:
        changes['type'] = SWAPS[name]
        # Our default is mmpretrain's, the last stage.
        if name == 'SwinTransformer' and 'out_indices' not in backbone \
                and (scope or cfg.default_scope) in ('mmdet', 'mmseg'):
            changes['out_indices'] = (0, 1, 2, 3)
    elif name not in SWAPS.values():
        why = f' ({UNLIKE[name]})' if name in UNLIKE else ''
        raise ValueError(f'{cfg.filename}: model.backbone is a {backbone.type}{why}; what can be '
                         f'made sparse are {", ".join(SWAPS)}')
    parse_keep_ratios(keep_ratios, len(backbone.get('prune_blocks') or (1, 2, 3)))
    backbone.update(changes)
    result = dict(model=dict(backbone=changes))
    hooks = list(cfg.get('custom_hooks') or [])
    held = any(hook.get('type') == 'SparseTrainingHook' for hook in hooks)
    if not held and not is_dense(keep_ratios):
        cfg.custom_hooks = [*hooks, ConfigDict(type='SparseTrainingHook')]
        result['custom_hooks'] = cfg.custom_hooks
    imports = cfg.get('custom_imports') or dict(allow_failed_imports=False)
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if 'dynsp_mm' not in names:
        cfg.custom_imports = dict(imports, imports=[*names, 'dynsp_mm'])
        result['custom_imports'] = cfg.custom_imports
    return result


def parse_ratios(text: str) -> Union[float, Sequence[float]]:
    """Reads ``'0.7'`` or ``'0.7,0.5,0.3'``.

    Raises:
        ValueError: For anything else.
    """
    try:
        ratios = tuple(float(part) for part in text.strip('()[] ').split(','))
    except ValueError:
        raise ValueError(f'{text!r}: must be a number such as 0.7, or numbers with commas between '
                         'them such as 0.7,0.5,0.3') from None
    return ratios[0] if len(ratios) == 1 else ratios
