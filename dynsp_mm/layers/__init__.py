"""Modules built on :mod:`dynsp_mm.ops`."""
from .conv_stem import ConvStem
from .convnext_block import ConvNeXtBlock
from .dual_path_stage import DualPathBlock, Streams, run_stage
from .fast_path import FastPath
from .norms import GRN, LayerNorm2d
from .semantic_blocks import (CrossAttention, GlobalBlock, InnerNeighbourhoodBlock,
                              NeighbourhoodBlock, SemanticBlock)
from .swin_block import SwinBlock
from .token_predictor import Decision, TokenPredictor
from .window_attention import ShiftWindowAttention, WindowAttention

__all__ = [
    'ConvNeXtBlock', 'ConvStem', 'CrossAttention', 'Decision', 'DualPathBlock', 'FastPath', 'GRN',
    'GlobalBlock', 'InnerNeighbourhoodBlock', 'LayerNorm2d', 'NeighbourhoodBlock', 'SemanticBlock',
    'ShiftWindowAttention', 'Streams', 'SwinBlock', 'TokenPredictor', 'WindowAttention', 'run_stage'
]
