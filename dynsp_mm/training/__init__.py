"""Losses, hooks and learning rates of sparse training."""

from .hold_pretrained_hook import HoldPretrainedHook
from .keep_ratio_annealing_hook import KeepRatioAnnealingHook
from .losses import keep_ratio_loss, logit_distillation_loss, map_distillation_loss
from .optim_wrapper_constructor import SparseOptimWrapperConstructor
from .sparse_training_hook import SparseTrainingHook
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
