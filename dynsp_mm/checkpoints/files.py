"""Reading checkpoints without running code from them, and writing them whole or not at all."""

import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors.torch
import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_local_path
from safetensors import SafetensorError
from torch.hub import download_url_to_file, get_dir

from ..compat import loading_also
from ..errors import UserError
from ..files import replacing
from .named import LOOK_UP, MethodCall, named_kinds
from .names import SCHEMES, resolve

# Where programs keep the weights.
ENTRIES = (
    'state_dict',
    'model',
    'model_state_dict',
    'model_ema',
    'state_dict_ema',
    'ema_state_dict',
)
# A dict that is built with its items, not filled with them.
KINDS = {'mmengine.config.config.ConfigDict': dict}


class Ignored:
    """Stands in for an object of a checkpoint that is not needed: takes anything, does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class IgnoredDict:
    """The same for a kind of dict: torch's reader fills none but plain and ordered ones."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict(args[0] if args and isinstance(args[0], dict) else ())


class IgnoredList:
    """The same for a kind of list."""

    def __new__(cls, *args, **kwargs):
        return []


class IgnoredLookUp:
    """The same for a function that gives classes."""

    def __new__(cls, *args, **kwargs):
        return Ignored


def _stand_in(path: str, kind: type) -> type:
    """A class that goes by the name of another: torch looks types up by their names."""
    bases = {dict: IgnoredDict, list: IgnoredList}
    base = IgnoredLookUp if path == LOOK_UP else bases.get(KINDS.get(path, kind), Ignored)
    module, _, name = path.rpartition('.')
    return type(name, (base,), {'__module__': module})


def read_checkpoint(path: str) -> Any:
    """Reads a ``.pth`` or ``.safetensors`` file; no code from the file runs.

    Args:
        path: A local file.

    Returns:
        What the file holds: tensors and plain values. Whatever else it has is not built: kinds of
        dicts come as ordered dicts, kinds of lists as lists, all other objects as
        :class:`Ignored`.

    Raises:
        UserError: If the file is missing, damaged or no checkpoint, holds other objects in place
            of weights or among them, or calls methods of objects.
    """
    if not Path(path).is_file():
        raise UserError(
            f'{path} ' + ('is a directory' if Path(path).is_dir() else 'does not exist')
        )
    if str(path).endswith('.safetensors'):
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f'{path} is damaged or no checkpoint: {_reason(error)}') from error
    try:
        stand_ins = [_stand_in(name, kind) for name, kind in named_kinds(path).items()]
        with loading_also([Ignored, *stand_ins]), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of pickles that are refused in the next line
            loaded = torch.load(path, map_location='cpu', weights_only=True)
    except MethodCall as error:
        raise UserError(_refusal(path, f'a call of {error}')) from error
    except pickle.UnpicklingError as error:
        kind = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise UserError(_refusal(path, kind and f'a {kind[1]}')) from error
    except Exception as error:  # torch raises whatever its parser trips over
        raise UserError(f'{path} is damaged or no checkpoint: {_reason(error)}') from error
    other = _other_than_weights(loaded)
    if other is not None:
        raise UserError(_refusal(path, f'a {type(other).__module__}.{type(other).__name__}'))
    return loaded


def _refusal(path: str, what: str | None) -> str:
    if what is None:
        return (
            f'{path} was not read: it holds more than tensors and plain values, or is no checkpoint'
        )
    return (
        f'{path} was not read: it holds {what}; only tensors and plain values are read, for other '
        'objects can run code'
    )


def _other_than_weights(loaded: Any) -> Ignored | None:
    """An object in place of the weights of a checkpoint, or among them."""
    entries = [loaded.get(key) for key in ENTRIES] if isinstance(loaded, Mapping) else []
    found = [item for item in entries if isinstance(item, Mapping)]
    found = found or [item for item in entries if isinstance(item, Ignored)] or [loaded]
    if not isinstance(found[0], Mapping):
        return found[0] if isinstance(found[0], Ignored) else None
    values = list(found[0].values())
    if not any(isinstance(value, torch.Tensor) for value in values):
        return None  # weights may be deeper, under a name that the caller knows
    return next((value for value in values if isinstance(value, Ignored)), None)


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [''])[0]
    # The text of a KeyError, for instance, is but the key.
    return first if ' ' in first else f'{type(error).__name__} {first}'.strip()


def read_checkpoint_anywhere(checkpoint: str) -> Any:
    """:func:`read_checkpoint` of whatever mmengine's loader takes.

    What comes from http(s) is kept where torch and mmengine keep downloads.

    Args:
        checkpoint: Path, http(s) URL, a name such as 'mmcls://swin_tiny' in one of the tables of
            :data:`~dynsp_mm.checkpoints.names.SCHEMES`, or a URI that mmengine's file backends
            take.

    Raises:
        UserError: As :func:`read_checkpoint`, and if the file cannot be had.
    """
    checkpoint = resolve(str(checkpoint).removeprefix('file://'))
    if checkpoint.startswith(('http://', 'https://')):
        return read_checkpoint(_download(checkpoint))
    if '://' not in checkpoint:
        return read_checkpoint(os.path.expanduser(checkpoint))
    try:
        with get_local_path(checkpoint) as path:
            return read_checkpoint(str(path))
    except (OSError, ImportError, KeyError, NotImplementedError) as error:
        scheme = checkpoint.partition('://')[0]
        reason = _reason(error)
        if isinstance(error, KeyError) and error.args == (scheme,):
            known = ', '.join(f'{name}://' for name in ('http', 'https', *SCHEMES))
            reason = f"nothing reads {scheme}://; {known} and mmengine's file backends are known"
        raise UserError(f'{checkpoint} cannot be had ({reason})') from error


def _download(url: str) -> str:
    path = Path(get_dir()) / 'checkpoints' / Path(urlparse(url).path).name
    reason = 'the first process of this machine could not'
    # One process of a machine downloads, the others find the file.
    if int(os.environ.get('LOCAL_RANK', get_rank())) == 0 and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # OpenMMLab's files end in the beginning of their hash, or in a date.
        digest = re.search(r'-([a-f0-9]{8,})\.[a-z.]+$', path.name)
        if digest and re.fullmatch(r'20\d{2}[01]\d[0-3]\d', digest[1]):
            digest = None
        try:
            download_url_to_file(url, str(path), digest and digest[1])
        except (OSError, RuntimeError) as error:
            reason = _reason(error)
    barrier()
    if not path.exists():
        raise UserError(f'{url} cannot be downloaded ({reason}); put the file at {path}')
    return str(path)


def write_checkpoint(state_dict: dict, source: str, path: str) -> None:
    """Writes the whole file or nothing; ``.safetensors`` by its name, else as torch does.

    Args:
        state_dict: Names and tensors.
        source: Name of the program they come from, kept as ``meta``.
        path: The file; replaced if it exists.

    Raises:
        OSError: If it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix == '.safetensors':
            safetensors.torch.save_file(
                state_dict, temporary, metadata=dict(source=source, format='pt')
            )
        else:
            torch.save(dict(meta=dict(source=source), state_dict=state_dict), temporary)
