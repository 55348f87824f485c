"""What a checkpoint names beside tensors and plain values, found out without any of it.

A pickle names classes and functions, calls them and fills what they return. Here a class that does
nothing takes the place of each, and notes what is done with it. Nothing is imported, so nothing of
the file can run.
"""

import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

LOOK_UP = 'builtins.getattr'  # how methods and classes inside classes are named
LEGACY_PICKLES = 4  # magic number, version, system, and what was saved


class MethodCall(Exception):
    """A file calls what it looked up in a class with an object: that is how code would run."""


class Trace:
    """Takes the place of an object; notes on its class what the file takes it for."""

    kind: type = object

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        type(self).kind = dict

    def append(self, items):
        type(self).kind = list

    extend = append


class _Attribute(type):
    """Class of what is looked up in a class: another class, which may be called with values."""

    def __call__(cls, *args, **kwargs):
        if any(isinstance(item, Trace) for item in args):
            raise MethodCall(cls.__name__)
        return super().__call__(*args, **kwargs)


class _LookUp(Trace):
    def __new__(cls, owner=None, name=''):
        return _Attribute(f'{getattr(owner, "__name__", owner)}.{name}', (Trace,), {})


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], found: dict[str, type[Trace]]):
        super().__init__(file)
        self.found = found

    def find_class(self, module: str, name: str) -> type[Trace]:
        # Protocol 2 writes names of Python 2, of which torch translates some.
        new = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = '.'.join(new)
        base = _LookUp if path == LOOK_UP else Trace
        trace = self.found.setdefault(path, type(path, (base,), {}))
        return self.found.setdefault(f'{module}.{name}', trace)

    def persistent_load(self, pid: object) -> None:
        """Of a tensor: its numbers are not looked at."""


def named_kinds(path: str) -> dict[str, type]:
    """Full names of the classes and functions in a ``.pth`` file.

    Args:
        path: A local file, of whatever content.

    Returns:
        Name -> dict or list where objects of the name are filled as such, else object. Of what is
        damaged or no pickle, what was found up to there.

    Raises:
        MethodCall: The file calls a method with an object.
    """
    found: dict[str, type[Trace]] = {}
    try:
        with suppress(EOFError), _pickles(path) as files:
            for file in files:
                _Reader(file, found).load()
    except MethodCall:
        raise
    except Exception:  # whatever a damaged file makes of it; torch's reader says so
        pass
    return {name: trace.kind for name, trace in found.items()}


@contextmanager
def _pickles(path: str) -> Iterator[Iterator[IO[bytes]]]:
    """The pickles of a file, one after the other."""
    if not zipfile.is_zipfile(path):
        with open(path, 'rb') as file:
            yield iter([file] * LEGACY_PICKLES)
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith('data.pkl')]
        yield (archive.open(name) for name in names)
