"""Configs that no file holds, and the texts of errors."""

import importlib.util

import pytest
from mmengine.config import Config

from dynsp_mm.configuration import LIBRARIES
from dynsp_mm.errors import UserError

SCOPE = next((lib for lib in LIBRARIES if importlib.util.find_spec(lib)), 'mmengine')


def make(scope='mmdet', **entries):
    """A config as if read from net.py."""
    return Config(dict(default_scope=scope, **entries), cfg_text='# no file', filename='net.py')


def fails(function, *args, **kwargs):
    """The text of the mistake that a call ends with."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)
