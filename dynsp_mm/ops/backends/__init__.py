"""Implementations of the steps of prepared modules, one file or folder each.

Each file of this folder is imported and registers its backend by itself, in alphabetical order.
docs/extending/backend.md says how to add one.
"""

import importlib
import pkgutil

from .base import Backend, Packed
from .registry import (
    BACKEND_CLASSES,
    BACKENDS,
    check_backend,
    fallback_reasons,
    find_backend,
    register_backend,
    resolve_backend,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_module.name}')

__all__ = [
    'BACKENDS',
    'BACKEND_CLASSES',
    'Backend',
    'Packed',
    'check_backend',
    'fallback_reasons',
    'find_backend',
    'register_backend',
    'resolve_backend',
]
