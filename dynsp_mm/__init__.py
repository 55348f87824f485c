"""Backbones for OpenMMLab that spend computation where the image needs it.

Importing this package registers its classes in mmengine's root registries, where mmdet, mmseg
and mmpretrain configs find them.
"""

from .backbones import DynamicConvNeXt, DynamicSwin, DynamicSwinV2, STViTSwin
from .backbones.create import create_backbone
from .compat import count_fused_attention, enable_mmseg_base_configs
from .configuration import config
from .deploy import PrepareForInferenceHook, prepare_for_inference
from .recording import DecisionLog, SemanticAttention, record_decisions, record_semantic_attention
from .sparsity import Decision, TokenPredictor
from .training import (
    HoldPretrainedHook,
    KeepRatioAnnealingHook,
    SpatialSparsityHook,
    SpatialSparsityOptimWrapperConstructor,
)
from .training.hooks.keep_maps import KeepMapHook
from .training.old_names import getattr_of
from .version import __version__

__all__ = [
    'Decision',
    'DecisionLog',
    'DynamicConvNeXt',
    'DynamicSwin',
    'DynamicSwinV2',
    'HoldPretrainedHook',
    'KeepMapHook',
    'KeepRatioAnnealingHook',
    'PrepareForInferenceHook',
    'STViTSwin',
    'SemanticAttention',
    'SpatialSparsityOptimWrapperConstructor',
    'SpatialSparsityHook',
    'TokenPredictor',
    '__version__',
    'config',
    'create_backbone',
    'prepare_for_inference',
    'record_decisions',
    'record_semantic_attention',
]

count_fused_attention()
enable_mmseg_base_configs()

__getattr__ = getattr_of(__name__)
