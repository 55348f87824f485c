"""Tables for ConvNeXt.

The DynamicConvNeXt release (raoyongming/DynamicViT) extends the names of the official dense
checkpoints (facebookresearch/ConvNeXt and, with GRN, ConvNeXt-V2).
"""

from torch import Tensor

from ..rules import Rule, Source, register


def pointwise(x: Tensor) -> Tensor:
    """Weight of a 1x1 convolution (O, I, 1, 1), or of a linear layer, as (O, I)."""
    return x.flatten(1)


BLOCK = r'stages\.(\d+)\.(\d+)\.'
DENSE = (
    Rule(
        r'downsample_layers\.(\d+)\.([01])\.(weight|bias)', r'backbone.downsample_layers.\1.\2.\3'
    ),
    Rule(BLOCK + r'dwconv\.(weight|bias)', r'backbone.stages.\1.\2.depthwise_conv.\3'),
    Rule(BLOCK + r'(norm\.weight|norm\.bias|gamma)', r'backbone.stages.\1.\2.\3'),
    Rule(
        BLOCK + r'pwconv([12])\.weight',
        r'backbone.stages.\1.\2.pointwise_conv\3.weight',
        transform=pointwise,
    ),
    Rule(BLOCK + r'pwconv([12])\.bias', r'backbone.stages.\1.\2.pointwise_conv\3.bias'),
    Rule(BLOCK + r'grn\.(gamma|beta)', r'backbone.stages.\1.\2.grn.\3', transform=Tensor.flatten),
    Rule(r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    Rule(r'norm\d\.(weight|bias)', r'backbone.\g<0>'),
    Rule(r'head\.(weight|bias)', r'head.fc.\1'),
)
PREDICTOR = r'score_predictor\.(\d+)\.'
SPARSE = (
    Rule(BLOCK + r'fast_path_gamma', r'backbone.stages.\1.\2.fast_gamma'),
    Rule(BLOCK + r'fast_path\.0\.(weight|bias)', r'backbone.stages.\1.\2.fast_path.norm.\3'),
    Rule(BLOCK + r'fast_path\.1\.(weight|bias)', r'backbone.stages.\1.\2.fast_path.linear.\3'),
    Rule(PREDICTOR + r'in_conv\.0\.(weight|bias)', r'backbone.token_predictors.\1.norm.\2'),
    Rule(
        PREDICTOR + r'in_conv\.1\.weight',
        r'backbone.token_predictors.\1.proj.weight',
        transform=pointwise,
    ),
    Rule(PREDICTOR + r'in_conv\.1\.bias', r'backbone.token_predictors.\1.proj.bias'),
    Rule(
        PREDICTOR + r'out_conv\.(\d+)\.weight',
        r'backbone.token_predictors.\1.head.\2.weight',
        transform=pointwise,
    ),
    Rule(PREDICTOR + r'out_conv\.(\d+)\.bias', r'backbone.token_predictors.\1.head.\2.bias'),
)
OFFICIAL = (r'downsample_layers\.', r'stages\.\d+\.\d+\.dwconv\.')
register(
    Source('DynamicConvNeXt release', (r'score_predictor\.', *OFFICIAL), DENSE + SPARSE),
    Source('official ConvNeXt', OFFICIAL, DENSE),
)
