"""What a model costs."""
from .flops import count_macs
from .latency import Timing, time_in_turns
from .memory import peak_memory, peak_memory_of

__all__ = ['Timing', 'count_macs', 'peak_memory', 'peak_memory_of', 'time_in_turns']
