"""Registered backbones: image -> tuple of NCHW maps."""

from .dynamic_convnext import DynamicConvNeXt
from .dynamic_swin import DynamicSwin
from .dynamic_swin_v2 import DynamicSwinV2
from .stvit_swin import STViTSwin

__all__ = ['DynamicConvNeXt', 'DynamicSwin', 'DynamicSwinV2', 'STViTSwin']
