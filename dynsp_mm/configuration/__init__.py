"""Reading configs and swapping their backbones."""

from .read import LIBRARIES, leaf_datasets, read_config, without_pretrained
from .swap import parse_ratios, sparsify

__all__ = [
    'LIBRARIES',
    'leaf_datasets',
    'parse_ratios',
    'read_config',
    'sparsify',
    'without_pretrained',
]
