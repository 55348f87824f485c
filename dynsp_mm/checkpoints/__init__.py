"""state_dict -> state_dict: other programs' names into ours, and loading."""
from .adapt import adapt_state_dict, load_pretrained
from .convert import Conversion, Rule, Source, convert_state_dict, find_source, unwrap

__all__ = [
    'Conversion', 'Rule', 'Source', 'adapt_state_dict', 'convert_state_dict', 'find_source',
    'load_pretrained', 'unwrap'
]
