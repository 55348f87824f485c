"""Pure functions on tensors: selection, dual-path execution, windows, neighbourhoods.

``backends`` holds the implementations of the steps of prepared modules.
"""

from .backends import BACKENDS, Backend, Packed, check_backend, find_backend, resolve_backend
from .content import Content, ImageContent, find_content
from .dual_path import dual_path, merge_streams, route_streams
from .folding import fold_norm, fold_scale, pieces
from .neighbourhoods import (
    attention_weights,
    cut_inner_neighbourhoods,
    inner_starts,
    neighbourhood_attention,
    neighbourhood_mask,
    neighbourhood_span,
    pool_windows,
    spread_weights,
)
from .ranges import PREDICTOR, WINDOWS, named_range
from .select import Selection, gumbel_keep_mask, keep_map, rank_positions, split_positions
from .windows import (
    WindowPlan,
    cyclic_shift_mask,
    log_offsets,
    partition_windows,
    plan_windows,
    relative_position_index,
    reverse_windows,
    window_attention,
)

__all__ = [
    'BACKENDS',
    'Backend',
    'Content',
    'ImageContent',
    'PREDICTOR',
    'Packed',
    'Selection',
    'WINDOWS',
    'WindowPlan',
    'attention_weights',
    'check_backend',
    'cut_inner_neighbourhoods',
    'cyclic_shift_mask',
    'dual_path',
    'find_backend',
    'find_content',
    'fold_norm',
    'fold_scale',
    'gumbel_keep_mask',
    'inner_starts',
    'keep_map',
    'log_offsets',
    'merge_streams',
    'named_range',
    'neighbourhood_attention',
    'neighbourhood_mask',
    'neighbourhood_span',
    'partition_windows',
    'pieces',
    'plan_windows',
    'pool_windows',
    'rank_positions',
    'relative_position_index',
    'resolve_backend',
    'reverse_windows',
    'route_streams',
    'split_positions',
    'spread_weights',
    'window_attention',
]
