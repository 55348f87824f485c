"""state_dict -> state_dict: other programs' names into ours; reading, writing, loading."""

from .arch import Arch, backbone_config, find_arch
from .convert import convert_state_dict, find_source, split_backbone, unwrap
from .files import read_checkpoint, read_checkpoint_anywhere, write_checkpoint
from .fit import Fit, adapt_state_dict, fit_state_dict
from .load import (
    OtherChannels,
    is_pretrained,
    load_from_anywhere,
    load_pretrained,
    load_whole,
    warn_of_stems,
)
from .rules import Conversion, Rule, Source

__all__ = [
    'Arch',
    'Conversion',
    'Fit',
    'OtherChannels',
    'Rule',
    'Source',
    'adapt_state_dict',
    'backbone_config',
    'convert_state_dict',
    'find_arch',
    'find_source',
    'fit_state_dict',
    'is_pretrained',
    'load_from_anywhere',
    'load_pretrained',
    'load_whole',
    'read_checkpoint',
    'read_checkpoint_anywhere',
    'split_backbone',
    'unwrap',
    'warn_of_stems',
    'write_checkpoint',
]
