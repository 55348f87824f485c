"""Tables for Swin and Swin-V2.

The DynamicSwin release (raoyongming/DynamicViT) extends the names of the official dense
checkpoints (microsoft/Swin-Transformer).
"""

import re

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


LAYER = r'layers[._](\d+)\.'  # 'layers_0' in the feature extractors of timm
BLOCK = LAYER + r'blocks\.(\d+)\.'
# What official Swin and Swin-V2 share, also with those of timm.
COMMON = (
    Rule(r'patch_embed\.proj\.(weight|bias)', r'backbone.patch_embed.projection.\1'),
    Rule(r'patch_embed\.norm\.(weight|bias)', r'backbone.patch_embed.norm.\1'),
    Rule('absolute_pos_embed', 'backbone.absolute_pos_embed'),
    Rule('mask_token', None, 'stood for masked patches in pretraining'),
    Rule(BLOCK + r'(norm[123])\.(weight|bias)', r'backbone.stages.\1.blocks.\2.\3.\4'),
    Rule(
        BLOCK + r'attn\.relative_(position_index|coords_table)',
        None,
        'derived from the window size',
    ),
    Rule(BLOCK + r'attn_mask', None, 'derived from the map size'),
    Rule(
        BLOCK + r'attn\.(relative_position_bias_table|(?:qkv|proj)\.(?:weight|bias))',
        r'backbone.stages.\1.blocks.\2.attn.w_msa.\3',
    ),
    Rule(BLOCK + r'mlp\.fc1\.(weight|bias)', r'backbone.stages.\1.blocks.\2.ffn.layers.0.0.\3'),
    Rule(BLOCK + r'mlp\.fc2\.(weight|bias)', r'backbone.stages.\1.blocks.\2.ffn.layers.1.\3'),
    Rule(r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    Rule(r'norm\d\.(weight|bias)', r'backbone.\g<0>'),
)
COSINES = (
    Rule(
        BLOCK + r'attn\.(logit_scale|[qv]_bias|cpb_mlp\.\d\.(?:weight|bias))',
        r'backbone.stages.\1.blocks.\2.attn.w_msa.\3',
    ),
    Rule(BLOCK + r'attn\.k_bias', None, 'zero'),
)


def merging_rules(first: int, normed_first: bool = True) -> tuple[Rule, ...]:
    """Rules of patch merging.

    Args:
        first: The stage, by our count, that the merging in ``layers.0`` belongs to.
        normed_first: Whether its norm comes before its linear layer, in the order of the patches.
    """

    def target(match: re.Match) -> str:
        return f'backbone.stages.{int(match[1]) + first}.downsample.{match[2]}'

    norm, linear = r'(norm\.(?:weight|bias))', r'(reduction\.weight)'
    return (
        Rule(
            LAYER + r'downsample\.' + norm, target, transform=unfold_order if normed_first else None
        ),
        Rule(LAYER + r'downsample\.' + linear, target, transform=unfold_order),
    )


HEAD = (Rule(r'head\.(weight|bias)', r'head.fc.\1'),)
DENSE = COMMON + merging_rules(0) + HEAD
DENSE_V2 = COMMON + COSINES + merging_rules(1, normed_first=False) + HEAD
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
ATTENTION = (r'layers[._]0\.blocks\.0\.attn\.', r'patch_embed\.proj\.')
OFFICIAL = (*ATTENTION, r'layers\.0\.downsample\.')
COSINE_MARK = r'layers[._]\d+\.blocks\.\d+\.attn\.logit_scale'
register(
    Source('DynamicSwin release', (r'layers\.2\.score_predictor\.', *OFFICIAL), DENSE + SPARSE),
    Source('official Swin', OFFICIAL, DENSE),
    Source('official Swin-V2', (*OFFICIAL, COSINE_MARK), DENSE_V2),
)
