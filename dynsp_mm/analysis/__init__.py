"""What a model costs."""
from .flops import count_macs

__all__ = ['count_macs']
