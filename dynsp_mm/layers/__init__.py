"""Modules built on :mod:`dynsp_mm.ops`."""

from .conv_stem import ConvStem
from .convnext_block import ConvNeXtBlock
from .dual_path_stage import DualPathBlock, Streams, run_stage
from .fast_path import FastPath
from .folded import Foldable, FoldedWindowAttention, reference_forms, release_weights
from .norms import GRN, LayerNorm2d
from .patch_merging import PatchMerging
from .semantic_blocks import (
    CrossAttention,
    GlobalBlock,
    InnerNeighbourhoodBlock,
    NeighbourhoodBlock,
    SemanticBlock,
)
from .swin_block import SwinBlock
from .swin_block_v2 import SwinBlockV2
from .token_predictor import Decision, TokenPredictor
from .window_attention import ShiftWindowAttention, WindowAttention
from .window_attention_v2 import WindowAttentionV2

__all__ = [
    'ConvNeXtBlock',
    'ConvStem',
    'CrossAttention',
    'Decision',
    'DualPathBlock',
    'FastPath',
    'Foldable',
    'FoldedWindowAttention',
    'GRN',
    'GlobalBlock',
    'InnerNeighbourhoodBlock',
    'LayerNorm2d',
    'NeighbourhoodBlock',
    'PatchMerging',
    'SemanticBlock',
    'ShiftWindowAttention',
    'Streams',
    'SwinBlock',
    'SwinBlockV2',
    'TokenPredictor',
    'WindowAttention',
    'WindowAttentionV2',
    'reference_forms',
    'release_weights',
    'run_stage',
]
