"""Losses and hooks of sparse training."""
from .losses import keep_ratio_loss
from .sparse_training_hook import SparseTrainingHook

__all__ = ['SparseTrainingHook', 'keep_ratio_loss']
