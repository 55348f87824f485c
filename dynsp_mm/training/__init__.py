"""Losses, hooks and learning rates of sparse training."""

from .hooks.annealing import KeepRatioAnnealingHook
from .hooks.hold import HoldPretrainedHook
from .hooks.spatial import SpatialSparsityHook
from .losses import keep_ratio_loss, logit_distillation_loss, map_distillation_loss
from .old_names import getattr_of
from .optim import SpatialSparsityOptimWrapperConstructor
from .teacher import Teacher

__all__ = [
    'HoldPretrainedHook',
    'KeepRatioAnnealingHook',
    'SpatialSparsityOptimWrapperConstructor',
    'SpatialSparsityHook',
    'Teacher',
    'keep_ratio_loss',
    'logit_distillation_loss',
    'map_distillation_loss',
]

__getattr__ = getattr_of(__name__)
