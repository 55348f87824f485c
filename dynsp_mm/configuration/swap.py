"""Turns the config of a dense model into that of a sparse one."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from .. import families
from ..errors import UserError
from ..sparsity import is_dense, parse_keep_ratios

# The hook of sparse training; configs of earlier versions have the second name.
HOOK_NAMES = ('SpatialSparsityHook', 'SparseTrainingHook')


def sparsify(cfg: Config, keep_ratios: float | Sequence[float]) -> dict[str, Any]:
    """Swaps, in place, the backbone of a loaded config for its sparse counterpart.

    The backbone keeps every argument; the sparse training hook and the import of this package are
    added where they are missing; with dense ratios the hook is taken out. With a backbone that is
    sparse already, only its ratios change.

    Args:
        cfg: Config of a model of mmdet, mmseg or mmpretrain.
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
    swaps = families.dense_classes()
    if name in swaps:
        changes['type'] = swaps[name].cls
        changes.update(_other_defaults(name, scope or cfg.get('default_scope'), backbone))
    elif name not in families.sparse_class_names():
        why = families.unlike_classes().get(name)
        raise UserError(
            f'{cfg.filename}: model.backbone is a {kind}{f" ({why})" if why else ""}; what can be '
            f'made sparse are {", ".join(swaps)}'
        )
    blocks, card = backbone.get('prune_blocks'), families.get(changes.get('type', name))
    if not isinstance(backbone.get('prune_stage'), (list, tuple)):  # else building it checks
        count = 1 if isinstance(blocks, int) else len(blocks or (1, 2, 3))
        parse_keep_ratios(keep_ratios, [count], card.ratios)
    backbone.update(changes)
    result = dict(model=dict(backbone=changes))
    hooks = list(cfg.get('custom_hooks') or [])
    others = [hook for hook in hooks if hook.get('type') not in HOOK_NAMES]
    if is_dense(keep_ratios):  # the hook refuses a model without predictors
        wanted = others
    else:
        wanted = hooks if len(others) < len(hooks) else [*hooks, ConfigDict(type=HOOK_NAMES[0])]
    if wanted != hooks:
        cfg.custom_hooks = result['custom_hooks'] = wanted
    imports = cfg.get('custom_imports') or dict(allow_failed_imports=False)
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if 'dynsp_mm' not in names:
        cfg.custom_imports = dict(imports, imports=[*names, 'dynsp_mm'])
        result['custom_imports'] = cfg.custom_imports
    return result


def _other_defaults(name: str, library: str, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a config leaves to the dense class and ours has other defaults for."""
    dense = next(dense for dense in families.get(name).dense if dense.cls == name)
    defaults = dense.defaults.get(library, {})
    return {key: value for key, value in defaults.items() if key not in backbone}


def parse_ratios(text: str) -> float | Sequence[float]:
    """Reads ``'0.7'`` or ``'0.7,0.5,0.3'``.

    Raises:
        UserError: For anything else.
    """
    try:
        ratios = tuple(float(word) for word in text.strip('()[] ').split(','))
    except ValueError:
        raise UserError(
            f'{text!r}: must be a number such as 0.7, or numbers with commas between '
            'them such as 0.7,0.5,0.3'
        ) from None
    return ratios[0] if len(ratios) == 1 else ratios
