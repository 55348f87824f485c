"""Pictures of what a sparse model keeps."""
from .keep_maps import draw_decisions, draw_keep_map, input_as_image

__all__ = ['draw_decisions', 'draw_keep_map', 'input_as_image']
