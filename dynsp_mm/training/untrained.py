"""New parts that a run leaves as they were drawn, said before it trains."""

import logging
from collections.abc import Mapping
from typing import Any

import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict

from ..backbones.base import Backbone, describe_parts
from ..sparsity import TokenPredictor
from .new_parameters import is_new
from .optim import matching_key


def warn_untrained(
    asker: str,
    model: nn.Module,
    backbones: Mapping[str, Backbone],
    optim_wrapper: OptimWrapper | OptimWrapperDict | None = None,
    cfg: Config | None = None,
) -> None:
    """Warns of predictors and fast paths that are as they were drawn and stay so.

    What a sparse checkpoint has trained may be frozen, and no word is said.

    Args:
        asker: Name of the hook for the message.
        model: Model that trains, without wrapper.
        backbones: Its sparse backbones, by name.
        optim_wrapper: What trains it; None if unknown.
        cfg: Config of the run, for what set a rate to 0.
    """
    rates = learning_rates(optim_wrapper, model)
    saved = set(model.state_dict())
    for name, backbone in backbones.items():
        prefix = f'{name}.' if name else ''
        drawn = backbone.parts_at_start()
        found: dict[str, dict[str, nn.Module]] = {}  # reason -> parts
        for key, part in drawn.items():
            reason = _why_untrained(f'{prefix}{key}', part, backbone, rates, cfg)
            if reason:
                found.setdefault(reason, {})[key] = part
        for reason, parts in found.items():
            _warn(
                f'{asker}: {describe_parts(parts)} of {name or type(backbone).__name__} are new '
                f'and not trained in this run: {reason}. They stay as they were drawn'
                + (
                    ', and decide at random'
                    if any(isinstance(part, TokenPredictor) for part in parts.values())
                    else ', and what they compute is random'
                )
                + f'. {_way_on(backbone)}'
            )
        unsaved = [
            key
            for key, parameter in backbone.named_parameters()
            if is_new(key)
            and prefix + key not in saved
            and (parameter.requires_grad or any(key.startswith(f'{part}.') for part in drawn))
        ]
        if unsaved:
            _warn(
                f'{asker}: checkpoints of this {type(model).__name__} will lack {len(unsaved)} '
                f'tensors of token predictors and fast paths, such as {prefix}{unsaved[0]}: an '
                'adapter around the backbone saves its own tensors alone. They are drawn anew '
                'wherever such a checkpoint is loaded; start from a sparse checkpoint in init_cfg '
                'of the backbone, which has them, or train without the adapter first'
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
) -> str | None:
    """Says why a part's matrices, which were drawn, are not trained; None where they are."""
    for key, parameter in part.named_parameters():
        if parameter.dim() < 2:
            continue
        if not parameter.requires_grad:
            stages = backbone.plan.stages
            if stages and backbone.num_frozen > stages[0]:
                return f'frozen by frozen_stages={backbone.frozen_stages}'
            return 'frozen (requires_grad=False)'
        if rates is not None and id(parameter) not in rates:
            return 'no group of the optimizer has them'
        if rates is not None and not rates[id(parameter)]:
            return 'their learning rate is 0' + _zero_key(f'{name}.{key}', cfg)
    return None


def _zero_key(name: str, cfg: Config | None) -> str:
    """Names the key of ``custom_keys`` that takes a parameter's rate to 0, if one does."""
    config: Any = cfg
    for key in ('optim_wrapper', 'paramwise_cfg', 'custom_keys'):
        config = config.get(key) if isinstance(config, Mapping) else None
    key = matching_key(config, name) if isinstance(config, Mapping) else None
    if key is None or config[key].get('lr_mult', 1) != 0:
        return ''
    return f', by the key {key!r} of paramwise_cfg.custom_keys'


def _way_on(backbone: Backbone) -> str:
    stage = backbone.plan.stages[0]
    most = ''
    if backbone.num_frozen > stage:
        most = f' (frozen_stages={backbone.frozen_stages - backbone.num_frozen + stage})'
    return (
        f'Freeze only stages below the sparse one, {stage}{most}; or give token_predictors and '
        'fast_path a rate of their own in paramwise_cfg.custom_keys; or load a sparse checkpoint, '
        "in which they are trained; selection='random' needs no token predictors"
    )


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
