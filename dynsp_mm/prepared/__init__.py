"""Second forms of modules for inference: the same results in fewer passes over memory."""

from .lifetime import Preparable, unprepared
from .paths import PreparedPath, is_exact_gelu, pack_after_norm
from .release import release_weights
from .windows import PreparedWindowAttention

__all__ = [
    'Preparable',
    'PreparedPath',
    'PreparedWindowAttention',
    'is_exact_gelu',
    'pack_after_norm',
    'release_weights',
    'unprepared',
]
