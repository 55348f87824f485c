"""Pictures of what a sparse model keeps and what semantic tokens stand for."""

from .keep_maps import draw_decisions, draw_keep_map
from .panels import as_rgb, input_as_image
from .semantic_maps import draw_regions, draw_semantic_attention, draw_weights

__all__ = [
    'as_rgb',
    'draw_decisions',
    'draw_keep_map',
    'draw_regions',
    'draw_semantic_attention',
    'draw_weights',
    'input_as_image',
]
