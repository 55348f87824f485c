"""Tables for torchvision's Swin, Swin-V2 and ConvNeXt (pytorch/vision).

``features`` holds the stem, then in turn the blocks of a stage and the step between two stages.
"""

import re
from collections.abc import Callable

from torch import Tensor

from ..rules import Rule, Source, register
from .swin import unfold_order

STEP = r'features\.([2468])\.'
BLOCK = r'features\.([13579])\.(\d+)\.'


def stage(template: str, less: int = 0) -> Callable[[re.Match], str]:
    """Makes a name of a template in which '#' stands for the stage.

    Args:
        template: Template of the name.
        less: 1 for what our backbone counts with the stage before.
    """
    return lambda match: match.expand(template).replace('#', str(int(match[1]) // 2 - less))


def without_keys(bias: Tensor) -> tuple[Tensor, Tensor]:
    """The biases of queries and values; that of keys is not used."""
    queries, _, values = bias.chunk(3)
    return queries, values


SWIN = (
    Rule(r'features\.0\.0\.(weight|bias)', r'backbone.patch_embed.projection.\1'),
    Rule(r'features\.0\.2\.(weight|bias)', r'backbone.patch_embed.norm.\1'),
    Rule(BLOCK + r'(norm[12])\.(weight|bias)', stage(r'backbone.stages.#.blocks.\2.\3.\4')),
    Rule(
        BLOCK + r'attn\.relative_(position_index|coords_table)',
        None,
        'derived from the window size',
    ),
    Rule(
        BLOCK + r'attn\.(relative_position_bias_table|logit_scale|qkv\.weight'
        r'|(?:proj|cpb_mlp\.\d)\.(?:weight|bias))',
        stage(r'backbone.stages.#.blocks.\2.attn.w_msa.\3'),
    ),
    Rule(BLOCK + r'mlp\.0\.(weight|bias)', stage(r'backbone.stages.#.blocks.\2.ffn.layers.0.0.\3')),
    Rule(BLOCK + r'mlp\.3\.(weight|bias)', stage(r'backbone.stages.#.blocks.\2.ffn.layers.1.\3')),
    Rule(r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    Rule(r'head\.(weight|bias)', r'head.fc.\1'),
)
SWIN_V1 = (
    Rule(BLOCK + r'attn\.qkv\.bias', stage(r'backbone.stages.#.blocks.\2.attn.w_msa.qkv.bias')),
    Rule(
        STEP + r'(norm\.weight|norm\.bias|reduction\.weight)',
        stage(r'backbone.stages.#.downsample.\2', less=1),
        transform=unfold_order,
    ),
)
SWIN_V2 = (
    Rule(
        BLOCK + r'attn\.qkv\.bias',
        (
            stage(r'backbone.stages.#.blocks.\2.attn.w_msa.q_bias'),
            stage(r'backbone.stages.#.blocks.\2.attn.w_msa.v_bias'),
        ),
        transform=without_keys,
    ),
    Rule(STEP + r'(norm\.weight|norm\.bias)', stage(r'backbone.stages.#.downsample.\2')),
    Rule(
        STEP + r'(reduction\.weight)',
        stage(r'backbone.stages.#.downsample.\2'),
        transform=unfold_order,
    ),
)
CONVNEXT = (
    Rule(r'features\.0\.([01])\.(weight|bias)', r'backbone.downsample_layers.0.\1.\2'),
    Rule(STEP + r'([01])\.(weight|bias)', stage(r'backbone.downsample_layers.#.\2.\3')),
    Rule(BLOCK + r'block\.0\.(weight|bias)', stage(r'backbone.stages.#.\2.depthwise_conv.\3')),
    Rule(BLOCK + r'block\.2\.(weight|bias)', stage(r'backbone.stages.#.\2.norm.\3')),
    Rule(BLOCK + r'block\.3\.(weight|bias)', stage(r'backbone.stages.#.\2.pointwise_conv1.\3')),
    Rule(BLOCK + r'block\.5\.(weight|bias)', stage(r'backbone.stages.#.\2.pointwise_conv2.\3')),
    Rule(BLOCK + r'layer_scale', stage(r'backbone.stages.#.\2.gamma'), transform=Tensor.flatten),
    Rule(r'classifier\.0\.(weight|bias)', r'backbone.norm3.\1'),
    Rule(r'classifier\.2\.(weight|bias)', r'head.fc.\1'),
)
STEM = r'features\.0\.0\.'
register(
    Source('torchvision Swin', (STEM, r'features\.1\.0\.attn\.'), SWIN + SWIN_V1),
    Source(
        'torchvision Swin-V2',
        (STEM, r'features\.1\.0\.attn\.', r'features\.1\.0\.attn\.logit_scale'),
        SWIN + SWIN_V2,
    ),
    Source('torchvision ConvNeXt', (STEM, r'features\.1\.0\.block\.'), CONVNEXT),
)
