"""Pure functions on tensors: selection, dual-path execution, windows."""
from .dual_path import dual_path, merge_streams, route_streams
from .select import Selection, gumbel_keep_mask, keep_map, split_positions
from .windows import (cyclic_shift_mask, partition_windows, relative_position_index,
                      reverse_windows, window_attention)

__all__ = [
    'Selection', 'cyclic_shift_mask', 'dual_path', 'gumbel_keep_mask', 'keep_map', 'merge_streams',
    'partition_windows', 'relative_position_index', 'reverse_windows', 'route_streams',
    'split_positions', 'window_attention'
]
