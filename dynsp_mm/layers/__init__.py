"""Modules built on :mod:`dynsp_mm.ops`."""

from .block import Block, PreparedBlock
from .conv_stem import ConvStem
from .convnext_block import ConvNeXtBlock
from .fast_path import FastPath
from .norms import GRN, LayerNorm2d
from .patch_merging import PatchMerging
from .semantic_blocks import (
    CrossAttention,
    GlobalBlock,
    InnerNeighbourhoodBlock,
    NeighbourhoodBlock,
    SemanticBlock,
)
from .start import vectors_equal
from .swin_block import SwinBlock
from .swin_block_v2 import SwinBlockV2
from .window_attention import ShiftWindowAttention, WindowAttention
from .window_attention_v2 import WindowAttentionV2

__all__ = [
    'Block',
    'ConvNeXtBlock',
    'ConvStem',
    'CrossAttention',
    'FastPath',
    'GRN',
    'GlobalBlock',
    'InnerNeighbourhoodBlock',
    'LayerNorm2d',
    'NeighbourhoodBlock',
    'PatchMerging',
    'PreparedBlock',
    'SemanticBlock',
    'ShiftWindowAttention',
    'SwinBlock',
    'SwinBlockV2',
    'WindowAttention',
    'WindowAttentionV2',
    'vectors_equal',
]
