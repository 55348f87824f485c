"""What a model costs."""
from .flops import count_macs
from .memory import peak_memory

__all__ = ['count_macs', 'peak_memory']
