"""A decision, then less work: the idea of the house."""

from .predictors import Decision, TokenPredictor
from .runner import DualPathBlock, Streams, run_stage

__all__ = ['Decision', 'DualPathBlock', 'Streams', 'TokenPredictor', 'run_stage']
