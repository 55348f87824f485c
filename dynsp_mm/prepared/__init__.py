"""Prepared forms of modules for inference."""

from .forms import Foldable, FoldedWindowAttention, reference_forms, release_weights

__all__ = ['Foldable', 'FoldedWindowAttention', 'reference_forms', 'release_weights']
