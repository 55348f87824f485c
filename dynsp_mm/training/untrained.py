"""New parts that a run leaves as they were drawn, said before it trains."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from ..backbones.base import Backbone, describe_parts
from ..configuration.types import is_type
from ..sparsity import TokenPredictor
from .new_parameters import is_new
from .optim import PRETRAINED_LR_MULT, SpatialSparsityOptimWrapperConstructor, matching_key


def warn_untrained(
    asker: str,
    model: nn.Module,
    backbones: Mapping[str, Backbone],
    optim_wrapper: OptimWrapper | OptimWrapperDict | None = None,
    cfg: Config | None = None,
    said: set[str] | None = None,
) -> None:
    """Warns of predictors and fast paths that are as they were drawn and stay so.

    What a sparse checkpoint has trained may be frozen, and no word is said.

    Args:
        asker: Name of the hook for the message.
        model: Model that trains, without wrapper.
        backbones: Its sparse backbones, by name.
        optim_wrapper: What trains it; None if unknown.
        cfg: Config of the run, for what set a rate to 0.
        said: Names of what was warned of before and is not again; those of this time are added.
    """
    said = set() if said is None else said
    rates = learning_rates(optim_wrapper, model)
    saved = set(model.state_dict())
    for name, backbone in backbones.items():
        prefix = f'{name}.' if name else ''
        drawn = backbone.parts_at_start()
        found: dict[tuple[str, str], dict[str, nn.Module]] = {}  # reason and way on -> parts
        for key, part in drawn.items():
            reason = _why_untrained(f'{prefix}{key}', part, backbone, rates, cfg)
            if reason and prefix + key not in said:
                said.add(prefix + key)
                found.setdefault(reason, {})[key] = part
        for (reason, way_on), parts in found.items():
            _warn(
                f'{asker}: {describe_parts(parts)} of {name or type(backbone).__name__} are new '
                f'and not trained in this run: {reason}. They stay as they were drawn'
                + (
                    ', and decide at random'
                    if any(isinstance(part, TokenPredictor) for part in parts.values())
                    else ', and what they compute is random'
                )
                + f'. {way_on}, or load a sparse checkpoint, in which they are trained'
            )
        unsaved = [
            key
            for key, parameter in backbone.named_parameters()
            if is_new(key)
            and prefix + key not in saved
            and (parameter.requires_grad or any(key.startswith(f'{part}.') for part in drawn))
        ]
        if unsaved and prefix + unsaved[0] not in said:
            said.update(prefix + key for key in unsaved)
            _warn(
                f'{asker}: checkpoints of this {type(model).__name__} will lack {len(unsaved)} '
                f'tensors of token predictors and fast paths, such as {prefix}{unsaved[0]}: an '
                'adapter around the backbone saves its own tensors alone. They are drawn anew '
                'wherever such a checkpoint is loaded; start from a sparse checkpoint in init_cfg '
                'of the backbone, which has them, or train without the adapter first'
            )


def warn_slow(unloaded: Sequence[str], cfg: Config | None) -> None:
    """Warns of parameters that start new and learn at the rate of pretrained ones.

    Args:
        unloaded: Names of parameters, other than those of predictors and fast paths, that the
            checkpoint of the run does not fill, such as those of a head for other classes.
        cfg: Config of the run.
    """
    wrapper = _entry(cfg, 'optim_wrapper')
    constructor = SpatialSparsityOptimWrapperConstructor.__name__
    kind, scope = _entry(wrapper, 'constructor'), _entry(cfg, 'default_scope')
    if not is_type(kind, (constructor,), OPTIM_WRAPPER_CONSTRUCTORS, scope):
        return
    mult = _entry(wrapper, 'paramwise_cfg', 'pretrained_lr_mult')
    mult = PRETRAINED_LR_MULT if mult is None else mult
    keys = _entry(wrapper, 'paramwise_cfg', 'custom_keys') or {}
    slow = [name for name in unloaded if mult < 1 and matching_key(keys, name) is None]
    if slow:
        modules = dict.fromkeys(name.split('.')[0] for name in slow)
        every = ', '.join(f'{module}=dict(lr_mult={1 / mult:g})' for module in modules if mult)
        _warn(
            f'{constructor}: {len(slow)} tensors, such as {slow[0]}, are not in the checkpoint in '
            f'their shape, so they are random, and have {mult} of the rate, as pretrained ones '
            'have'
            + (
                f'; paramwise_cfg.custom_keys=dict({every}) gives all of the rate to all of '
                f'{" and ".join(modules)}, also to what the checkpoint has of it'
                if mult
                else '; choose a pretrained_lr_mult above 0'
            )
        )


def learning_rates(
    optim_wrapper: OptimWrapper | OptimWrapperDict | None, model: nn.Module
) -> dict[int, Any] | None:
    """Maps ids of parameters to the largest rate that they have or that schedules start from.

    Returns:
        None where there is no telling, as with optimizers that hold flattened copies.
    """
    groups = getattr(optim_wrapper, 'param_groups', None)
    if isinstance(optim_wrapper, OptimWrapperDict):
        groups = [group for part in groups.values() for group in part]
    rates: dict[int, Any] = {}
    for group in groups or ():
        # Warm-up may begin at 0; an optimizer that finds its rate itself may have none.
        known = [group[key] for key in ('lr', 'initial_lr') if group.get(key) is not None]
        rate = max(map(float, known)) if known else 1.0
        for parameter in group.get('params', ()):
            rates[id(parameter)] = max(rate, rates.get(id(parameter), 0.0))
    return rates if any(id(parameter) in rates for parameter in model.parameters()) else None


def _why_untrained(
    name: str,
    part: nn.Module,
    backbone: Backbone,
    rates: Mapping[int, Any] | None,
    cfg: Config | None,
) -> tuple[str, str] | None:
    """Why matrices of a part, which were drawn, are not trained, and the way on; else None."""
    for key, parameter in part.named_parameters():
        if parameter.dim() < 2:
            continue
        if not parameter.requires_grad:
            stage, count = backbone.plan.stages[0], backbone.num_frozen
            if count > stage:
                given = backbone.frozen_stages
                most = given - count + stage
                return (
                    f'frozen by frozen_stages={given}',
                    f'Freeze only stages below the sparse one, frozen_stages={most} at most',
                )
            return 'frozen (requires_grad=False)', 'Leave them out of what is frozen'
        if rates is not None and id(parameter) not in rates:
            return 'no group of the optimizer has them', 'Give them to the optimizer'
        if rates is not None and not rates[id(parameter)]:
            return (
                'their learning rate is 0' + _zero_key(f'{name}.{key}', cfg),
                'Give them a rate, with keys of their own such as paramwise_cfg.custom_keys='
                'dict(token_predictors=dict(lr_mult=1), fast_path=dict(lr_mult=1))',
            )
    return None


def _zero_key(name: str, cfg: Config | None) -> str:
    """Names the key of ``custom_keys`` that takes a parameter's rate to 0, if one does."""
    keys = _entry(cfg, 'optim_wrapper', 'paramwise_cfg', 'custom_keys') or {}
    key = matching_key(keys, name)
    if key is None or keys[key].get('lr_mult', 1) != 0:
        return ''
    return f', by the key {key!r} of paramwise_cfg.custom_keys'


def _entry(config: Any, *keys: str) -> Any:
    """An entry of nested configs; None where one is absent."""
    for key in keys:
        config = config.get(key) if hasattr(config, 'get') else None
    return config


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
