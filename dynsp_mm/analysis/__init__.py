"""What a model costs."""

from .bounds import copy_bandwidth, matrix_rate
from .flops import count_macs
from .latency import Timing, time_in_turns
from .memory import held_memory, peak_memory, peak_memory_of
from .parts import PARTS, time_by_part

__all__ = [
    'PARTS',
    'Timing',
    'copy_bandwidth',
    'count_macs',
    'held_memory',
    'matrix_rate',
    'peak_memory',
    'peak_memory_of',
    'time_by_part',
    'time_in_turns',
]
