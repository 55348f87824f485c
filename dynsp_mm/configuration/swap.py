"""Turns the config of a dense model into that of a sparse one."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import HOOKS

from ..errors import UserError
from ..sparsity import is_dense, parse_keep_ratios
from .places import Kind, kind_of, to_swap
from .types import is_type, type_name

# The hook of sparse training; configs of earlier versions have the second name.
HOOK_NAMES = ('SpatialSparsityHook', 'SparseTrainingHook')


def sparsify(
    cfg: Config, keep_ratios: float | Sequence[float], key: str | None = None
) -> dict[str, Any]:
    """Swaps, in place, the backbone of a loaded config for its sparse counterpart.

    The backbone keeps every argument; the sparse training hook and the import of this package are
    added where they are missing; with dense ratios the hook is taken out. With a backbone that is
    sparse already, only its ratios change. The backbone is ``model.backbone`` or one within it;
    without ``model.backbone`` the only one elsewhere in the model, as in ``model.detector``.

    Args:
        cfg: Config of a model of mmdet, mmseg or mmpretrain.
        keep_ratios: See ``DynamicSwin``.
        key: Dotted key of the backbone, needed where there are several.

    Returns:
        The entries that were set, as a config that inherits the original would give them.

    Raises:
        UserError: If there is no backbone that can be swapped, or several, which the message
            names, or the ratios are out of range. The config is then as it was.
    """
    place = to_swap(cfg, key)
    backbone, kind = place.config, kind_of(place)
    changes: dict[str, Any] = dict(keep_ratios=keep_ratios)
    if not kind.sparse:
        changes['type'] = kind.family.cls
        changes.update(_other_defaults(kind, type_name(backbone), backbone))
    blocks = backbone.get('prune_blocks')
    if not isinstance(backbone.get('prune_stage'), (list, tuple)):  # else building it checks
        count = 1 if isinstance(blocks, int) else len(blocks or (1, 2, 3))
        parse_keep_ratios(keep_ratios, [count], kind.family.ratios)
    backbone.update(changes)
    result = _inheriting(cfg, place.key.split('.'), changes)
    hooks = list(cfg.get('custom_hooks') or [])
    others = [hook for hook in hooks if not is_type(hook, HOOK_NAMES, HOOKS)]
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


def _inheriting(config: Any, steps: Sequence[str], changes: Any) -> Any:
    """Entries by which an heir of a config makes changes at a dotted key."""
    if not steps:
        return changes
    if isinstance(config, (list, tuple)):  # inherited whole or not at all
        return config
    return {steps[0]: _inheriting(config[steps[0]], steps[1:], changes)}


def _other_defaults(kind: Kind, name: str, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a config leaves to the dense class and ours has other defaults for."""
    dense = next(dense for dense in kind.family.dense if dense.cls == name)
    defaults = dense.defaults.get(kind.library, {})
    return {key: value for key, value in defaults.items() if key not in backbone}


def parse_swap(text: str) -> tuple[float | Sequence[float], str | None]:
    """Reads ratios and the key of a backbone: ``'0.7'``, or ``'model.student.backbone=0.7'``.

    Raises:
        UserError: As :func:`parse_ratios`.
    """
    key, _, ratios = text.rpartition('=')
    return parse_ratios(ratios), key or None


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
