"""Where the backbones of a config are: in ``model``, or in the models, wrappers and lists in it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmengine.config import Config

from .. import families
from ..errors import UserError
from .paths import LIBRARIES
from .types import Typed, find_type, type_name, typed_configs

BACKBONE = 'model.backbone'


class Kind(NamedTuple):
    """What a type is to the swap.

    Attributes:
        name: The type as messages name it.
        family: Family that it belongs to, or that takes its place; None for neither.
        sparse: Whether it has spatially sparse blocks already.
        library: Of a dense class the library, whose defaults it has.
        why: Why no family takes its place, where that is known.
    """

    name: str
    family: families.Family | None = None
    sparse: bool = False
    library: str | None = None
    why: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the swap takes it."""
        return self.family is not None


def kind_of(place: Typed) -> Kind:
    """What the type of a config is to the swap."""
    written, name = place.config['type'], type_name(place.config)
    shown = written if isinstance(written, str) else f'{written.__module__}.{name}'
    found = find_type(place.config, scope=place.scope)
    # Where the class is of no library, or not at hand, what is written counts.
    library = shown.partition('.')[0] if '.' in shown else place.scope
    if not isinstance(found, type):
        return _of_name(shown, name, library)
    package, dense = found.__module__.partition('.')[0], families.dense_classes()
    library = package if package in LIBRARIES else library
    replaced = next((base for base in found.__mro__[1:] if base.__name__ in dense), None)
    if found.__name__ in dense and replaced is None:
        return _of_name(shown, found.__name__, library)
    sparse = families.of(found)
    if sparse is not None:
        # One without spatially sparse blocks has no ratios.
        return Kind(shown, sparse, True) if sparse.spatial else Kind(shown)
    if replaced is None or package in LIBRARIES:
        return _of_name(shown, found.__name__, library)
    why = (
        f'a class of {package} derived from {replaced.__name__}; what it changes would be lost, so '
        f'derive it from {dense[replaced.__name__].cls} instead'
    )
    return Kind(shown, why=why)


def _of_name(shown: str, name: str, library: str | None) -> Kind:
    dense = families.dense_classes()
    if name in dense:
        return Kind(shown, dense[name], False, library)
    if name in families.sparse_class_names():
        return Kind(shown, families.get(name), True)
    return Kind(shown, why=families.unlike_classes().get(name))


def to_swap(cfg: Config, key: str | None = None) -> Typed:
    """The backbone that can be made sparse, or is.

    That is ``model.backbone`` or one within it; where there is no ``model.backbone``, the one
    elsewhere in the model, as in ``model.detector``. Of several those are meant that are sparse
    already.

    Args:
        cfg: Config of a model.
        key: Dotted key of the one that is meant, of several.

    Raises:
        UserError: There is none, or there are several.
    """
    places = _places(cfg)
    if key is not None:
        able = [place.key for place in places if kind_of(place).fits]
        places = [place for place in places if place.key == key]
        if not places:
            raise UserError(
                f'{cfg.filename}: has no {key} with a type'
                + (f'; what can be made sparse are {", ".join(able)}' if able else '')
            )
    own = next((place for place in places if place.key == (key or BACKBONE)), None)
    if own is not None:
        places = [place for place in places if f'{place.key}.'.startswith(f'{own.key}.')]
    kinds = {place.key: kind_of(place) for place in places}
    fitting = [place for place in places if kinds[place.key].fits]
    fitting = [place for place in fitting if kinds[place.key].sparse] or fitting
    if not fitting:
        dense = ', '.join(families.dense_classes())
        named = own or next((place for place in places if _is_backbone(place)), None)
        if named is None:
            raise UserError(
                f'{cfg.filename}: has no model.backbone with a type, nor one elsewhere in its '
                f'model, so nothing can be made sparse; what can are {dense}'
            )
        kind = kinds[named.key]
        why = f' ({kind.why})' if kind.why else ''
        raise UserError(
            f'{cfg.filename}: {named.key} is a {kind.name}{why}; '
            f'what can be made sparse are {dense}'
        )
    return _only(cfg, fitting, 'that can be made sparse', lambda one: f'name one, as {one}=RATIO')


def find_backbone(cfg: Config) -> Typed:
    """The backbone that tools measure: as :func:`to_swap`, or of another class.

    Raises:
        UserError: There is none, or there are several.
    """
    places = _places(cfg)
    own = next((place for place in places if place.key == BACKBONE), None)
    within = [place for place in places if own is None or place.key.startswith(own.key)]
    fitting = [place for place in within if kind_of(place).fits]
    if len(fitting) == 1 or (own is None and fitting):
        return to_swap(cfg)
    if own is not None:
        return own
    named = [place for place in places if _is_backbone(place)]
    if not named:
        raise UserError(f'{cfg.filename}: has no model.backbone with a type, nor one elsewhere')
    return _only(cfg, named, 'in its model', lambda one: 'a config with one of them is needed')


def _places(cfg: Config) -> list[Typed]:
    return list(typed_configs(cfg.get('model'), 'model', cfg.get('default_scope')))


def _is_backbone(place: Typed) -> bool:
    return place.key.rpartition('.')[-1] == 'backbone'


def _only(cfg: Config, places: Sequence[Typed], which: str, advice: Callable[[str], str]) -> Typed:
    if len(places) > 1:
        keys = [place.key for place in places]
        raise UserError(
            f'{cfg.filename}: has {len(keys)} backbones {which}: {", ".join(keys)}; '
            f'{advice(keys[0])}'
        )
    return places[0]
