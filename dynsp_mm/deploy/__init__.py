"""Whole models ready for production."""

from .prepare import PrepareForInferenceHook, prepare_for_inference

__all__ = ['PrepareForInferenceHook', 'prepare_for_inference']
