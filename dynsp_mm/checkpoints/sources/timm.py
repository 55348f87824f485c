"""Tables for timm's Swin, Swin-V2 and ConvNeXt, V1 and V2 (huggingface/pytorch-image-models).

They serve classifiers, with or without head, and what ``features_only=True`` makes, which writes
'layers_0' for 'layers.0'. Until release 0.9 its Swin had the official names.
"""

from ..rules import Rule, Source, register
from .convnext import pointwise
from .swin import ATTENTION, COMMON, COSINE_MARK, COSINES, merging_rules

HIDDEN = 'its classifier has a hidden layer, which none of mmpretrain has'
HEAD = (
    Rule(
        r'head\.(?:pre_logits\.)?fc\.(?:weight|bias)',
        None,
        HIDDEN,
        beside='head.pre_logits.fc.weight',
    ),
    Rule(r'head\.fc\.(weight|bias)', r'head.fc.\1'),
)

STAGE = r'stages[._](\d+)\.'
BLOCK = STAGE + r'blocks\.(\d+)\.'
CONVNEXT = (
    Rule(r'stem[._]([01])\.(weight|bias)', r'backbone.downsample_layers.0.\1.\2'),
    Rule(STAGE + r'downsample\.([01])\.(weight|bias)', r'backbone.downsample_layers.\1.\2.\3'),
    Rule(BLOCK + r'conv_dw\.(weight|bias)', r'backbone.stages.\1.\2.depthwise_conv.\3'),
    Rule(BLOCK + r'(norm\.weight|norm\.bias|gamma)', r'backbone.stages.\1.\2.\3'),
    Rule(
        BLOCK + r'mlp\.fc([12])\.weight',
        r'backbone.stages.\1.\2.pointwise_conv\3.weight',
        transform=pointwise,
    ),
    Rule(BLOCK + r'mlp\.fc([12])\.bias', r'backbone.stages.\1.\2.pointwise_conv\3.bias'),
    Rule(BLOCK + r'mlp\.grn\.weight', r'backbone.stages.\1.\2.grn.gamma'),
    Rule(BLOCK + r'mlp\.grn\.bias', r'backbone.stages.\1.\2.grn.beta'),
    Rule(r'(?:head\.norm|norm_pre)\.(weight|bias)', r'backbone.norm3.\1'),
)
register(
    # Patch merging stands before the blocks of a stage.
    Source('timm Swin', ATTENTION, COMMON + merging_rules(-1) + HEAD),
    Source(
        'timm Swin-V2',
        (*ATTENTION, COSINE_MARK),
        COMMON + COSINES + merging_rules(0, normed_first=False) + HEAD,
    ),
    Source(
        'timm ConvNeXt', (r'stem[._]0\.', r'stages[._]0\.blocks\.0\.conv_dw\.'), CONVNEXT + HEAD
    ),
    Source(
        'timm Swin-V2-CR',
        (r'patch_embed\.proj\.', r'stages[._]\d+\.blocks\.\d+\.attn\.meta_mlp\.'),
        refusal='it is another network than Swin-V2; take weights of a swinv2_*_window*',
    ),
)
