"""Names for published checkpoints that mmengine's loader knows, such as 'mmcls://swin_tiny'."""

import difflib
import logging
import os.path as osp
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_tables

from ..errors import UserError

SHOWN = 10  # names that a message lists at most


class Scheme(NamedTuple):
    """What stands before '://' in a name.

    Attributes:
        table: Function that makes the table of names and URLs.
        successor: Scheme that replaces a deprecated one; empty for others.
        deprecated: Function that makes the table of old names and the new ones.
    """

    table: Callable[[], Mapping[str, str | None]]
    successor: str = ''
    deprecated: Callable[[], Mapping[str, str]] = dict


TORCHVISION = Scheme(mmengine_tables.get_torchvision_models)
OPENMMLAB = Scheme(
    mmengine_tables.get_external_models, deprecated=mmengine_tables.get_deprecated_model_names
)
SCHEMES: Mapping[str, Scheme] = {
    'mmcls': Scheme(mmengine_tables.get_mmcls_models),
    'open-mmlab': OPENMMLAB,
    'openmmlab': OPENMMLAB,
    'torchvision': TORCHVISION,
    'modelzoo': TORCHVISION._replace(successor='torchvision'),
}


def resolve(checkpoint: str) -> str:
    """URL or path that a name stands for; what has none of :data:`SCHEMES` comes back as it is.

    Args:
        checkpoint: Such as 'mmcls://swin_tiny', or any other text.

    Raises:
        UserError: The scheme is known and the name is not.
    """
    prefix, separator, name = checkpoint.partition('://')
    scheme = SCHEMES.get(prefix) if separator else None
    if scheme is None:
        return checkpoint
    if scheme.successor:
        _warn(f'{prefix}://', f'{scheme.successor}://')
    new = scheme.deprecated().get(name)
    if new is not None:
        _warn(checkpoint, f'{prefix}://{new}')
        name = new
    try:
        table = scheme.table()
    except ImportError as error:
        raise UserError(f'{checkpoint} cannot be looked up ({error})') from error
    if name not in table:
        raise UserError(f'{checkpoint}: {prefix}:// has no such name; {_known(name, table)}')
    url = table[name]
    if not url:
        raise UserError(f'{checkpoint}: its program published no weights')
    # A table of the user's own may name files beside it.
    return url if '://' in url else osp.join(mmengine_tables._get_mmengine_home(), url)


def _warn(old: str, new: str) -> None:
    print_log(f'{old} is deprecated in favor of {new}', 'current', logging.WARNING)


def _known(name: str, table: Mapping[str, str | None]) -> str:
    """The names like one, else the first of all; at most ten."""
    near = [known for known in table if name and known.startswith(name)]
    near += [known for known in difflib.get_close_matches(name, table) if known not in near]
    names = near or list(table)
    more = f', ... ({len(names)} in all)' if len(names) > SHOWN else ''
    return f'{"near" if near else "known"} are {", ".join(names[:SHOWN])}{more}'
