"""Tables for files that have the names of our backbones already: dense Swin, Swin-V2 and ConvNeXt
of mmdet, mmseg and mmpretrain, and what this package trained.

They make sure that every key is known, drop derived buffers, and give weights of 1x1 convolutions
the shape of linear layers.
"""

from ..convert import Rule, Source
from .convnext import pointwise

MASK = Rule('mask_token', None, 'stood for masked patches in pretraining')
NORMS = Rule(r'norm\d+\.(weight|bias)', r'backbone.\g<0>')
PREDICTORS = Rule(r'token_predictors\.\d+\.(norm|proj|head\.\d+)\.(weight|bias)', r'backbone.\g<0>')
SWIN_BLOCK = r'stages\.\d+\.blocks\.\d+\.'
SWIN = (
    Rule(r'patch_embed\.(projection|norm|layers\.\d+\.(conv|bn))\.\w+', r'backbone.\g<0>'),
    Rule('absolute_pos_embed', r'backbone.\g<0>'),
    Rule(
        SWIN_BLOCK + r'attn\.w_msa\.relative_(position_index|coords_table)',
        None,
        'derived from the window size',
    ),
    Rule(SWIN_BLOCK + r'(attn(\.w_msa)?\.)?attn_mask', None, 'derived from the map size'),
    Rule(
        SWIN_BLOCK + r'(norm[123]|attn\.w_msa\.(qkv|proj)|attn\.(q|kv|proj)|ffn\.layers\.(0\.0|1))'
        r'\.(weight|bias)',
        r'backbone.\g<0>',
    ),
    Rule(
        SWIN_BLOCK + r'attn\.w_msa\.(relative_position_bias_table|logit_scale|[qv]_bias'
        r'|cpb_mlp\.[02]\.(weight|bias))',
        r'backbone.\g<0>',
    ),
    Rule(
        SWIN_BLOCK + r'(layer_scale_[12]|fast_path\.(norm|linear)\.(weight|bias))',
        r'backbone.\g<0>',
    ),
    Rule(
        r'stages\.\d+\.(semantic_token2|downsample\.(norm|reduction)\.(weight|bias))',
        r'backbone.\g<0>',
    ),
    Rule(r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    MASK,
    NORMS,
    PREDICTORS,
)
CONVNEXT_BLOCK = r'stages\.\d+\.\d+\.'
CONVNEXT = (
    Rule(r'downsample_layers\.\d+\.[01]\.(weight|bias)', r'backbone.\g<0>'),
    Rule(CONVNEXT_BLOCK + r'pointwise_conv[12]\.weight', r'backbone.\g<0>', transform=pointwise),
    Rule(
        CONVNEXT_BLOCK + r'(pointwise_conv[12]\.bias|(depthwise_conv|norm)\.(weight|bias)|gamma'
        r'|grn\.(gamma|beta))',
        r'backbone.\g<0>',
    ),
    Rule(
        CONVNEXT_BLOCK + r'(fast_gamma|fast_path\.(norm|linear)\.(weight|bias))', r'backbone.\g<0>'
    ),
    MASK,
    NORMS,
    PREDICTORS,
)
SOURCES = (
    Source('OpenMMLab Swin', (r'stages\.\d+\.blocks\.\d+\.attn\.',), SWIN, native=True),
    Source('OpenMMLab ConvNeXt', (r'stages\.\d+\.\d+\.depthwise_conv\.',), CONVNEXT, native=True),
)
