"""Published data sets: what is there, what is missing, and unpacking downloaded archives."""

from .archives import ArchiveError
from .prepare import prepare
from .sets import DATA_SETS, DataSet

__all__ = ['ArchiveError', 'DATA_SETS', 'DataSet', 'prepare']
