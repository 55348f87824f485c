"""Tables: one file a program, registered on import, named by the card of a family."""

import importlib

from ... import families
from ..rules import Source, registered
from .openmmlab import native_sources


def known_sources() -> tuple[Source, ...]:
    """All tables: those of the modules that the cards name, then those of our own names."""
    for card in families.all_families():
        for module in card.sources:
            importlib.import_module(module, __name__)
    return registered() + native_sources()


def known_programs() -> str:
    """Names of those whose checkpoints are taken, for messages."""
    return '; '.join(source.name for source in known_sources() if not source.refusal)
