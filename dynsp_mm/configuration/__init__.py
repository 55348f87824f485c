"""Reading configs and swapping their backbones."""

from .paths import LIBRARIES, config
from .read import leaf_datasets, read_config, without_pretrained
from .swap import parse_ratios, sparsify

__all__ = [
    'LIBRARIES',
    'config',
    'leaf_datasets',
    'parse_ratios',
    'read_config',
    'sparsify',
    'without_pretrained',
]
