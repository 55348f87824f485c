"""Tables for Swin.

The DynamicSwin release (raoyongming/DynamicViT) extends the names of the official dense
checkpoints (microsoft/Swin-Transformer).
"""

import torch
from torch import Tensor

from ..rules import Rule, Source, register


def unfold_order(x: Tensor) -> Tensor:
    """Reorders the input channels of patch merging, the last axis of length 4C.

    Official: four neighbours (top left, bottom left, top right, bottom right) of C channels.
    OpenMMLab (``nn.Unfold``): C channels of four neighbours, row by row.
    """
    top_left, bottom_left, top_right, bottom_right = x.unflatten(-1, (4, -1)).unbind(-2)
    return torch.stack([top_left, top_right, bottom_left, bottom_right], -1).flatten(-2)


BLOCK = r'layers\.(\d+)\.blocks\.(\d+)\.'
DENSE = (
    Rule(r'patch_embed\.proj\.(weight|bias)', r'backbone.patch_embed.projection.\1'),
    Rule(r'patch_embed\.norm\.(weight|bias)', r'backbone.patch_embed.norm.\1'),
    Rule('absolute_pos_embed', 'backbone.absolute_pos_embed'),
    Rule(BLOCK + r'(norm[12])\.(weight|bias)', r'backbone.stages.\1.blocks.\2.\3.\4'),
    Rule(BLOCK + r'attn\.relative_position_index', None, 'derived from the window size'),
    Rule(BLOCK + r'attn_mask', None, 'derived from the map size'),
    Rule(
        BLOCK + r'attn\.(relative_position_bias_table|(?:qkv|proj)\.(?:weight|bias))',
        r'backbone.stages.\1.blocks.\2.attn.w_msa.\3',
    ),
    Rule(BLOCK + r'mlp\.fc1\.(weight|bias)', r'backbone.stages.\1.blocks.\2.ffn.layers.0.0.\3'),
    Rule(BLOCK + r'mlp\.fc2\.(weight|bias)', r'backbone.stages.\1.blocks.\2.ffn.layers.1.\3'),
    Rule(
        r'layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)',
        r'backbone.stages.\1.downsample.\2',
        transform=unfold_order,
    ),
    Rule(r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    Rule(r'norm\d\.(weight|bias)', r'backbone.\g<0>'),
    Rule(r'head\.(weight|bias)', r'head.fc.\1'),
)
PREDICTOR = r'layers\.2\.score_predictor\.(\d+)\.'
SPARSE = (
    Rule(
        BLOCK + r'fastmlp\.fc1\.0\.(weight|bias)', r'backbone.stages.\1.blocks.\2.fast_path.norm.\3'
    ),
    Rule(
        BLOCK + r'fastmlp\.fc1\.1\.(weight|bias)',
        r'backbone.stages.\1.blocks.\2.fast_path.linear.\3',
    ),
    Rule(PREDICTOR + r'in_conv\.0\.(weight|bias)', r'backbone.token_predictors.\1.norm.\2'),
    Rule(PREDICTOR + r'in_conv\.1\.(weight|bias)', r'backbone.token_predictors.\1.proj.\2'),
    Rule(PREDICTOR + r'out_conv\.(\d+)\.(weight|bias)', r'backbone.token_predictors.\1.head.\2.\3'),
)
OFFICIAL = (r'layers\.0\.blocks\.0\.attn\.', r'patch_embed\.proj\.')
register(
    Source('DynamicSwin release', (r'layers\.2\.score_predictor\.', *OFFICIAL), DENSE + SPARSE),
    Source('official Swin', OFFICIAL, DENSE),
)
