"""Learning rates and weight decay of sparse training."""
from numbers import Real
from typing import List, Optional

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .new_parts import is_new, new_parameters

# What mmengine's constructor knows; it ignores other words.
OPTIONS = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
           'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SparseOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Full rate for token predictors and fast paths, a fraction of it for pretrained parameters.

    As in the code of arXiv 2207.01580, tensors of one dimension (norms, biases, layer scales) get
    no weight decay and all others do, position bias tables and depthwise kernels among them::

        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05),
            constructor='SparseOptimWrapperConstructor',
            paramwise_cfg=dict(pretrained_lr_mult=0.2))

    Each parameter is a group of its own, pretrained ones first: the runner's log shows the rate of
    the new parts as ``base_lr`` and that of pretrained parameters as ``lr``.

    Args:
        optim_wrapper_cfg: As in mmengine's ``DefaultOptimWrapperConstructor``; the optimizer must
            have ``lr``.
        paramwise_cfg: ``pretrained_lr_mult`` (default 0.2) multiplies the rate of every parameter
            but those of token predictors and fast paths, and may be 0 to 1; all options of
            mmengine's class, of which ``flat_decay_mult`` is 0 unless given. ``lr_mult`` of
            ``custom_keys`` multiplies the rate once more: 5 gives a new head the full rate.

    Raises:
        TypeError: If ``paramwise_cfg`` is no dict.
        ValueError: For an unknown option, a fraction outside [0, 1], an optimizer without ``lr``;
            for a model of which no token predictor or fast path is trained, since all of it would
            then learn at a fraction of the rate.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None):
        if not isinstance(paramwise_cfg, (dict, type(None))):
            raise TypeError(f'paramwise_cfg={paramwise_cfg!r}: must be a dict or None')
        defaults = dict(pretrained_lr_mult=0.2, flat_decay_mult=0.0)
        super().__init__(optim_wrapper_cfg, {**defaults, **(paramwise_cfg or {})})

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        known = ('pretrained_lr_mult', *OPTIONS)
        for option in self.paramwise_cfg:
            if option not in known:
                raise ValueError(f'paramwise_cfg has the unknown option {option!r}: '
                                 f'{type(self).__name__} knows {", ".join(known)}')
        mult = self.paramwise_cfg['pretrained_lr_mult']
        if isinstance(mult, bool) or not isinstance(mult, Real) or not 0 <= mult <= 1:
            raise ValueError(f'pretrained_lr_mult={mult!r}: must be a number in [0, 1]')
        if self.base_lr is None:
            raise ValueError(f'optimizer={dict(self.optimizer_cfg)!r}: {type(self).__name__} needs '
                             'its lr')

    def add_params(self, params: List[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module=None) -> None:
        """Adds the groups of a module; those of the whole model then get their fractions."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # a part, reached from the call for the whole model
            return
        new = new_parameters(module)
        if not new:
            raise ValueError(f'{type(self).__name__}: {type(module).__name__} has no token '
                             'predictors or fast paths to train; remove the constructor, or give '
                             'a DynamicSwin or DynamicConvNeXt backbone keep_ratios below 1')
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[id(group['params'][0])]
            group['lr'] = group.get('lr', self.base_lr) * self._lr_mult(name)
        # Runners log the rate of the first group.
        params.sort(key=lambda group: is_new(names[id(group['params'][0])]))
        print_log(f'{type(self).__name__}: {len(new)} tensors of token predictors and fast paths '
                  f'have the full rate, {len(params) - len(new)} pretrained ones '
                  f'{self.paramwise_cfg["pretrained_lr_mult"]} of it', 'current')

    def _lr_mult(self, name: str) -> float:
        """What a parameter's rate is multiplied by."""
        return 1.0 if is_new(name) else self.paramwise_cfg['pretrained_lr_mult']
