"""Files and folders that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(
    path: str | os.PathLike, temporary: str | os.PathLike | None = None
) -> Iterator[Path]:
    """Context that yields a file to write, which takes the place of ``path`` at its end.

    If the context ends with an exception, that file is removed and ``path`` stays as it was.

    Args:
        path: The file; it may exist, its folder must.
        temporary: The file to write, on the same file system. A process that is killed leaves it
            behind, and the next one of that name writes over it. None is a new one beside
            ``path``.

    Raises:
        OSError: The file cannot be written, such as where ``path`` is a directory.
    """
    path = Path(path)
    if temporary is None:
        handle, temporary = tempfile.mkstemp('.tmp', f'.{path.name}.', path.parent)
        os.close(handle)
    temporary = Path(temporary)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp and some writers grant only the owner
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes text or bytes into a file, whole or not at all; one that exists is replaced.

    Raises:
        OSError: The file cannot be written, such as where ``path`` is a directory.
    """
    with replacing(path) as temporary:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            temporary.write_text(content)


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Context that yields a new, empty folder, which takes the place of ``path`` at its end.

    If the context ends with an exception, the new folder is removed and ``path`` stays as it was.

    Args:
        path: The folder; it may exist, then it is removed with what it holds. Its parents are
            made. A link is followed, as a rename would replace it.

    Raises:
        OSError: The folder cannot be made or exchanged.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}-', dir=path.parent) as temporary:
        new = Path(temporary, 'new')
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, Path(temporary, 'replaced'))
        os.replace(new, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
