"""What the types in configs stand for.

Configs in text name them: 'Name', 'scope.Name', or with their module, as mmengine writes configs in
python style into work directories. Those in python style hold the classes and functions themselves.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import DATASETS, MODELS, Registry

from .paths import LIBRARIES


class Typed(NamedTuple):
    """A config with a type.

    Attributes:
        key: Its dotted key.
        config: The config itself, not a copy.
        scope: Scope in which its type is looked up; None for the default one.
    """

    key: str
    config: dict[str, Any]
    scope: str | None

    @property
    def alone(self) -> dict[str, Any]:
        """A copy that is built elsewhere as it is built here."""
        return {**self.config, **({'_scope_': self.scope} if self.scope else {})}


def type_name(config: Any) -> str:
    """Last part of the name of a config's type, or of a type itself; '' for none."""
    kind = config.get('type') if isinstance(config, Mapping) else config
    if isinstance(kind, str):
        return kind.rpartition('.')[-1]
    if isinstance(kind, (LazyAttr, LazyObject)):
        return str(kind)
    return getattr(kind, '__name__', '')


def find_type(config: Any, registry: Registry = MODELS, scope: str | None = None) -> Any:
    """The class or function that a config's type, or a type itself, stands for.

    Args:
        config: Config with a type, or a type.
        registry: Where short names are looked up.
        scope: Scope of the config; None for the default one.

    Returns:
        None where there is no type or none of that name.
    """
    kind = config
    if isinstance(config, Mapping):
        kind, scope = config.get('type'), config.get('_scope_') or scope
    if isinstance(kind, (LazyAttr, LazyObject)):
        kind = kind.build()
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        try:
            found = scoped.get(kind)
        except (ImportError, RuntimeError, TypeError, ValueError):
            return None  # no name of a class, or mmengine says so when it builds it
    return None if inspect.ismodule(found) else found


def is_type(
    config: Any, names: Collection[str], registry: Registry = MODELS, scope: str | None = None
) -> bool:
    """Whether a config's type is one of that name, or a class that inherits from one."""
    if type_name(config) in names:
        return True
    bases = getattr(find_type(config, registry, scope), '__mro__', ())
    return any(base.__name__ in names for base in bases)


def typed_configs(config: Any, key: str, scope: str | None = None) -> Iterator[Typed]:
    """Yields each config with a type in a config, lists included, the outer before the inner."""
    if isinstance(config, dict):
        scope = config.get('_scope_') or scope
        if config.get('type') is not None:
            yield Typed(key, config, scope)
        for name, value in config.items():
            yield from typed_configs(value, f'{key}.{name}', scope)
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from typed_configs(value, f'{key}.{index}', scope)


# ---------------------------------------------------------------------- scopes
def scope_of_type(config: Any, registry: Registry = MODELS) -> str | None:
    """The scope that a config's type belongs to, whatever the default one is.

    That is the library of its class or of the nearest class that it inherits from, else another
    package with registries of its own. Short names belong to the config's own ``_scope_``.
    """
    kind, scope = config, None
    if isinstance(config, Mapping):
        kind, scope = config.get('type'), config.get('_scope_')
    if kind is None or (isinstance(kind, str) and '.' not in kind):
        return scope
    found = find_type(kind, registry)
    bases = inspect.getmro(found) if inspect.isclass(found) else (found,)
    packages = [str(getattr(base, '__module__', '')).partition('.')[0] for base in bases]
    return next((package for package in packages if package in LIBRARIES), None) or next(
        (package for package in packages if package in MODELS.children), None
    )


def find_scope(cfg: Config) -> str | None:
    """The scope that the classes of a config tell, None if they tell none.

    The model's class is asked first, then what prepares its data, its data sets, and its modules.
    """
    scopes = (scope_of_type(*source) for source in _scope_sources(cfg))
    return next((scope for scope in scopes if scope), None)


def _scope_sources(cfg: Config) -> Iterator[tuple[Any, Registry]]:
    """Configs that may tell a scope, with their registries, one after the other."""
    model = cfg.get('model')
    if isinstance(model, Mapping):
        yield model, MODELS
    for item in typed_configs(cfg.get('data_preprocessor'), ''):
        yield item.config, MODELS
    for split in ('train', 'val', 'test'):
        for item in typed_configs((cfg.get(f'{split}_dataloader') or {}).get('dataset'), ''):
            yield item.config, DATASETS
    for item in typed_configs(model, ''):
        yield item.config, MODELS


def library_of(cfg: Config) -> str | None:
    """The library whose model a config is of: its scope, or, where that is none, its classes'."""
    scope = cfg.get('default_scope')
    return scope if scope in LIBRARIES else find_scope(cfg) or scope
