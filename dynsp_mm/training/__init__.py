"""Losses, hooks and learning rates of sparse training."""

from .hooks.annealing import KeepRatioAnnealingHook
from .hooks.hold import HoldPretrainedHook
from .hooks.spatial import SparseTrainingHook
from .losses import keep_ratio_loss, logit_distillation_loss, map_distillation_loss
from .optim import SparseOptimWrapperConstructor
from .teacher import Teacher

__all__ = [
    'HoldPretrainedHook',
    'KeepRatioAnnealingHook',
    'SparseOptimWrapperConstructor',
    'SparseTrainingHook',
    'Teacher',
    'keep_ratio_loss',
    'logit_distillation_loss',
    'map_distillation_loss',
]
