"""Table for the STViT-R releases.

Those for classification (changsn/STViT-R) and for detection (changsn/STViT-R-Object-Detection)
extend the names of official Swin.
"""

from ..rules import Rule, Source, register
from .swin import BLOCK, DENSE, OFFICIAL

GROUPS = (
    Rule(r'patch_embed\.proj\.0\.c\.weight', 'backbone.patch_embed.layers.0.conv.weight'),
    Rule(r'patch_embed\.proj\.2\.c\.weight', 'backbone.patch_embed.layers.1.conv.weight'),
    Rule(r'patch_embed\.proj\.0\.bn\.(\w+)', r'backbone.patch_embed.layers.0.bn.\1'),
    Rule(r'patch_embed\.proj\.2\.bn\.(\w+)', r'backbone.patch_embed.layers.1.bn.\1'),
    Rule(BLOCK + r'(layer_scale_[12])', r'backbone.stages.\1.blocks.\2.\3'),
    # Plain blocks have a projection of the same name.
    Rule(
        BLOCK + r'attn\.(q|kv|proj)\.(weight|bias)',
        r'backbone.stages.\1.blocks.\2.attn.\3.\4',
        beside=r'layers.\1.blocks.\2.attn.q.weight',
    ),
    Rule(r'layers\.(\d+)\.semantic_token2', r'backbone.stages.\1.semantic_token2'),
)
register(
    Source(
        'STViT-R release',
        (r'patch_embed\.proj\.0\.c\.', r'layers\.\d+\.blocks\.\d+\.attn\.q\.', *OFFICIAL),
        GROUPS + DENSE,
    )
)
