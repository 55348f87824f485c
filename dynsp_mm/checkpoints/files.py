"""Reading checkpoints without running code from them, and writing them whole or not at all."""

import os
import pickle
import re
import warnings
from collections import OrderedDict
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
from .names import SCHEMES, resolve


class Ignored:
    """Stands in for an object of a checkpoint that is not needed: takes anything, does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class IgnoredDict:
    """The same for a kind of dict: torch's reader fills none but plain and ordered ones."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


# What checkpoints of the published programs and of mmengine hold beside tensors and plain values:
# command lines, configs, logged values. None of these is built; empty objects take their places.
IGNORED = (
    'argparse.Namespace',
    'pathlib.Path',
    'pathlib.PosixPath',
    'pathlib.WindowsPath',
    'pathlib._local.PosixPath',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'builtins.getattr',
    'numpy.ndarray',
    'numpy.dtype',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
)
IGNORED_DICTS = ('yacs.config.CfgNode',)


def _stand_in(path: str, base: type) -> type:
    """A class that goes by the name of another: torch looks types up by their names."""
    module, name = path.rsplit('.', 1)
    return type(name, (base,), {'__module__': module})


STAND_INS = [_stand_in(path, Ignored) for path in IGNORED] + [
    _stand_in(path, IgnoredDict) for path in IGNORED_DICTS
]


def read_checkpoint(path: str) -> Any:
    """Reads a ``.pth`` or ``.safetensors`` file; no code from the file runs.

    Args:
        path: A local file.

    Returns:
        What the file holds. Objects of the types in :data:`IGNORED` come as :class:`Ignored`,
        those of :data:`IGNORED_DICTS` as ordered dicts.

    Raises:
        UserError: If the file is missing, damaged or no checkpoint, or holds other objects.
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
        with loading_also(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of pickles that are refused in the next line
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise UserError(
            f'{path} was not read: it holds '
            + (
                f'a {kind[1]}; only tensors and plain values are read, for other objects can run '
                'code'
                if kind
                else 'more than tensors and plain values, or is no checkpoint'
            )
        ) from error
    except Exception as error:  # torch raises whatever its parser trips over
        raise UserError(f'{path} is damaged or no checkpoint: {_reason(error)}') from error


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
