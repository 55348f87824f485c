"""Learning rates and weight decay of sparse training."""

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from ..errors import UserError, check_number
from .new_parameters import check_has_new, is_new, new_parameters

# What mmengine's constructor knows; it ignores other words.
OPTIONS = (
    'custom_keys',
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'flat_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'bypass_duplicate',
)
PRETRAINED_LR_MULT = 0.2  # unless given
# What a custom key for new parameters names; others match their names by chance.
NAMES_NEW = re.compile('token_predictors|fast_path|fast_gamma')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SpatialSparsityOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Gives token predictors and fast paths the full rate, pretrained parameters a fraction of it.

    As in the code of arXiv 2207.01580, tensors of one dimension (norms, biases, layer scales) get
    no weight decay and all others do, position bias tables and depthwise kernels among them::

        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05),
            constructor='SpatialSparsityOptimWrapperConstructor',
            paramwise_cfg=dict(pretrained_lr_mult=0.2))

    Each parameter is a group of its own, pretrained ones first: the runner's log shows the rate of
    the new ones as ``base_lr`` and that of pretrained parameters as ``lr`` (with layer decay, that
    of the first of them, as a rule the stem's).

    Args:
        optim_wrapper_cfg: Config as of mmengine's ``DefaultOptimWrapperConstructor``; the optimizer
            must have ``lr``.
        paramwise_cfg: Options of this class and all of mmengine's, of which ``flat_decay_mult`` is
            0 unless given. ``pretrained_lr_mult`` (default 0.2, in [0, 1]) multiplies the rate of
            every parameter but those of token predictors and fast paths. ``lr_mult`` of
            ``custom_keys`` multiplies the rate once more: 5 gives a new head the full rate. Keys
            that do not name token predictors or fast paths leave these alone, and one without
            ``decay_mult`` leaves ``flat_decay_mult`` as it is.
            ``layer_decay_rate`` (default 1, in (0, 1]) multiplies the rate of pretrained
            parameters of backbones once for each layer that comes after, as mmpretrain's
            ``LearningRateDecayOptimWrapperConstructor`` does, by the backbones'
            ``get_layer_depth(param_name, prefix)``. Necks and heads come after all layers.

    Raises:
        TypeError: If ``paramwise_cfg`` is no dict.
        UserError: For an unknown option, a fraction outside its range, an optimizer without
            ``lr``; for a model without token predictors and fast paths, since all of it would then
            learn at a fraction of the rate (where all are frozen, a warning says so); for layer
            decay without a backbone that knows its layers' depths.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        if not isinstance(paramwise_cfg, (dict, type(None))):
            raise TypeError(f'paramwise_cfg={paramwise_cfg!r}: must be a dict or None')
        defaults = dict(
            pretrained_lr_mult=PRETRAINED_LR_MULT, layer_decay_rate=1.0, flat_decay_mult=0.0
        )
        self._depths: dict[str, Callable] = {}
        super().__init__(optim_wrapper_cfg, {**defaults, **without_delete(paramwise_cfg or {})})

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        known = ('pretrained_lr_mult', 'layer_decay_rate', *OPTIONS)
        for option in self.paramwise_cfg:
            if option not in known:
                raise UserError(
                    f'paramwise_cfg has the unknown option {option!r}: '
                    f'{type(self).__name__} knows {", ".join(known)}; where it is '
                    "inherited, set paramwise_cfg's _delete_=True"
                )
        options = self.paramwise_cfg
        check_number('pretrained_lr_mult', options['pretrained_lr_mult'], 0, 1)
        check_number('layer_decay_rate', options['layer_decay_rate'], 0, 1, low_open=True)
        if self.base_lr is None:
            raise UserError(
                f'optimizer={dict(self.optimizer_cfg)!r}: {type(self).__name__} needs its lr'
            )

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None
    ) -> None:
        """Adds the groups of a module; those of the whole model then get their fractions."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # a module inside, reached from the call for the whole model
            return
        check_has_new(module, type(self).__name__)
        new = new_parameters(module)
        decay = self.paramwise_cfg['layer_decay_rate']
        self._depths = layer_depths(module) if decay != 1 else {}
        if decay != 1 and not self._depths:
            raise UserError(
                f'layer_decay_rate={decay!r}: {type(module).__name__} has no backbone '
                'with get_layer_depth(param_name, prefix); leave the option out'
            )
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            self._set_rates(group, names[id(group['params'][0])])
        # Runners log the rate of the first group.
        params.sort(key=lambda group: is_new(names[id(group['params'][0])]))
        mult, pretrained = self.paramwise_cfg['pretrained_lr_mult'], len(params) - len(new)
        if not new:
            print_log(
                f'{type(self).__name__}: all token predictors and fast paths of this '
                f'{type(module).__name__} are frozen, so that nothing has the full rate: '
                f'everything that is trained has {mult} of it; remove the constructor',
                'current',
                logging.WARNING,
            )
        print_log(
            f'{type(self).__name__}: {len(new)} tensors of token predictors and fast paths '
            f'have the full rate, {pretrained} pretrained ones {mult} of it'
            + (
                f', times {decay} for each layer of the backbone that comes after'
                if self._depths
                else ''
            ),
            'current',
        )

    def _set_rates(self, group: dict, name: str) -> None:
        """Sets learning rate and weight decay of a parameter, after those of mmengine's class."""
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        key = matching_key(custom_keys, name)
        # Such as 'head' or 'backbone', which the names of new parameters contain, too.
        foreign = key is not None and is_new(name) and not NAMES_NEW.search(key)
        if foreign:
            group['lr'] = self.base_lr
        keeps_decay = key is not None and (foreign or 'decay_mult' not in custom_keys[key])
        if keeps_decay and self.base_wd is not None:
            flat = group['params'][0].dim() == 1
            group['weight_decay'] = self.base_wd * (
                self.paramwise_cfg['flat_decay_mult'] if flat else 1.0
            )
        group['lr'] = group.get('lr', self.base_lr) * self._lr_mult(name)

    def _lr_mult(self, name: str) -> float:
        """Computes what a parameter's rate is multiplied by."""
        if is_new(name):
            return 1.0
        mult = self.paramwise_cfg['pretrained_lr_mult']
        for prefix, get_layer_depth in self._depths.items():
            if name.startswith(prefix):
                depth, count = get_layer_depth(name, prefix)
                return mult * self.paramwise_cfg['layer_decay_rate'] ** (count - depth - 1)
        return mult


def without_delete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copies a config without the ``_delete_`` that mmengine leaves where nothing is inherited."""
    return {
        key: without_delete(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key != '_delete_'
    }


def matching_key(custom_keys: Iterable[str], name: str) -> str | None:
    """The key that mmengine applies to a parameter: the longest one that its name contains."""
    return next((k for k in sorted(sorted(custom_keys), key=len, reverse=True) if k in name), None)


def layer_depths(model: nn.Module) -> dict[str, Callable]:
    """Maps prefixes of parameter names to ``get_layer_depth`` of the module with that prefix.

    mmpretrain's classifiers have a method of that name without a prefix: it asks the backbone.
    """
    depths: dict[str, Callable] = {}
    for name, module in model.named_modules():
        method = getattr(module, 'get_layer_depth', None)
        if method is not None and 'prefix' in inspect.signature(method).parameters:
            depths[f'{name}.' if name else ''] = method
    return depths
