"""Names of earlier versions: they still work, and name the one of today once."""

import warnings
from collections.abc import Callable
from typing import Any

from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, Registry

from .hooks.spatial import SpatialSparsityHook
from .optim import SpatialSparsityOptimWrapperConstructor

RENAMED: dict[str, type] = dict(
    SparseTrainingHook=SpatialSparsityHook,
    SparseOptimWrapperConstructor=SpatialSparsityOptimWrapperConstructor,
)
_said: set[str] = set()


def renamed(name: str) -> type:
    """Returns the class that had a name, and warns the first time that it is asked for."""
    new = RENAMED[name]
    if name not in _said:
        _said.add(name)
        warnings.warn(
            f'{name} is called {new.__name__} now; the old name still works',
            FutureWarning,
            stacklevel=3,
        )
    return new


def getattr_of(module: str) -> Callable[[str], Any]:
    """Makes a ``__getattr__`` for a module from which the old names can be imported."""

    def get(name: str) -> Any:
        if name in RENAMED:
            return renamed(name)
        raise AttributeError(f'module {module!r} has no attribute {name!r}')

    return get


def _register(registry: Registry, old: str) -> None:
    """Registers an old name, so that configs with it build the class of today."""

    def build(*args, **kwargs) -> Any:
        return renamed(old)(*args, **kwargs)

    build.__name__ = build.__qualname__ = old
    registry.register_module(name=old, module=build)


_register(HOOKS, 'SparseTrainingHook')
_register(OPTIM_WRAPPER_CONSTRUCTORS, 'SparseOptimWrapperConstructor')
