"""What the package says in the log."""

import itertools
import logging
from contextlib import contextmanager

from mmengine.logging import MMLogger

NAMES = itertools.count()


@contextmanager
def warnings_of(logger=None):
    """A list of the warnings that mmengine's current logger, or this one, gets meanwhile."""
    logger = logger or MMLogger.get_instance(f'warnings_{next(NAMES)}')
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
