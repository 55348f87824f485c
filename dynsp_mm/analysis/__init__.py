"""What a model costs: measuring only."""

from .bounds import copy_bandwidth, matrix_rate
from .flops import count_macs
from .latency import Timing, time_in_turns
from .memory import held_memory, peak_memory, peak_memory_of
from .operators import OPERATOR_CLASSES, time_by_operator_class

__all__ = [
    'OPERATOR_CLASSES',
    'Timing',
    'copy_bandwidth',
    'count_macs',
    'held_memory',
    'matrix_rate',
    'peak_memory',
    'peak_memory_of',
    'time_by_operator_class',
    'time_in_turns',
]
