"""Spatial sparsity: a decision, then less work where it says so."""

from .decision import Decision, Rows, TokenStream, decide
from .plan import Gate, SparsityPlan, is_dense, parse_keep_ratios
from .predictors import TokenPredictor
from .runner import Schedule, Site, run_blocks
from .units import UNITS, Unit, find_unit, register_unit

__all__ = [
    'Decision',
    'Gate',
    'Rows',
    'Schedule',
    'Site',
    'SparsityPlan',
    'TokenPredictor',
    'TokenStream',
    'UNITS',
    'Unit',
    'decide',
    'find_unit',
    'is_dense',
    'parse_keep_ratios',
    'register_unit',
    'run_blocks',
]
