"""Registered backbones: image -> tuple of NCHW maps."""
from .dynamic_convnext import DynamicConvNeXt
from .dynamic_swin import DynamicSwin
from .stvit_swin import STViTSwin

__all__ = ['DynamicConvNeXt', 'DynamicSwin', 'STViTSwin']
