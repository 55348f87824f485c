"""Reading zip and tar files that others made: only ordinary files, and only below the target.

Nothing here extracts by the archive's word: the caller names the file that each member becomes,
and the content alone is copied, no mode, owner or link.
"""

import gzip
import posixpath
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...errors import UserError
from ...files import replacing

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    struct.error,
    NotImplementedError,
)
CHUNK = 1 << 20  # bytes


class ArchiveError(UserError):
    """An archive is damaged, incomplete, or holds something that is not unpacked."""


class NotInArchive(ArchiveError):
    """An archive is sound, but does not hold what was looked for."""


@dataclass(frozen=True)
class Member:
    """An ordinary file in an archive.

    Attributes:
        name: Normal form of its path, relative and without '..'.
        size: Unpacked, in bytes.
        open: Returns a binary file to read it from; valid while the archive is open.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]


@contextmanager
def open_archive(path, inner=None):
    """Context that yields the :class:`Member` list of a zip or tar file, gzipped ones included.

    Args:
        path (Path): The archive.
        inner (str, optional): A zip or tar file within the archive, whose members are meant.

    Raises:
        ArchiveError: on entering, the file is no archive, is truncated, or has an entry that is
            a link or a device or leads out of it; inside the context, reading found damage.
    """
    try:
        with ExitStack() as stack:
            members = _members(stack.enter_context(open(path, 'rb')), path, stack)
            if inner is not None:
                outer = {member.name: member for member in members}
                if inner not in outer:
                    raise NotInArchive(f'archive {path} does not hold {inner}')
                file = stack.enter_context(outer[inner].open())
                members = _members(file, f'{path}, {inner}', stack)
            yield members
    except DAMAGE as error:
        reason = ' '.join(str(error).split())
        raise ArchiveError(
            f'archive {path} is damaged or not completely downloaded ({reason}); download it again'
        ) from error


@contextmanager
def open_member(member, path):
    """As :func:`open_archive`, for an archive that is itself the member of archive ``path``."""
    with ExitStack() as stack:
        yield _members(stack.enter_context(member.open()), f'{path}, {member.name}', stack)


def _members(file, name, stack):
    if _has_zip_magic(file):
        archive = stack.enter_context(zipfile.ZipFile(file))
        entries = [
            (info.filename, info.file_size, _zip_kind(info), lambda info=info: archive.open(info))
            for info in archive.infolist()
        ]
    else:
        archive = stack.enter_context(tarfile.open(fileobj=file))  # noqa: SIM115
        entries = [
            (info.name, info.size, _tar_kind(info), lambda info=info: archive.extractfile(info))
            for info in archive.getmembers()
        ]
        # tarfile takes an entry that is cut off or damaged for the end, which is a block of zeros.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError('its end is missing')
    members = []
    for path, size, kind, opener in entries:
        if leads_outside(path):
            raise ArchiveError(
                f'archive {name}: entry {path!r} leads out of the archive; nothing is unpacked'
            )
        if kind not in ('file', 'folder'):
            raise ArchiveError(f'archive {name}: entry {path!r} is {kind}; nothing is unpacked')
        if kind == 'file':
            members.append(Member(posixpath.normpath(path), size, opener))
    return members


def _has_zip_magic(file):
    magic = file.read(4)
    file.seek(0)
    return magic[:2] == b'PK'


def _zip_kind(info):
    if info.flag_bits & 1:
        return 'encrypted'
    if info.is_dir():
        return 'folder'
    mode = stat.S_IFMT(info.external_attr >> 16)
    return 'file' if mode in (0, stat.S_IFREG) else 'a link or a device'


def _tar_kind(info):
    if info.isdir():
        return 'folder'
    return 'file' if info.isreg() else 'a link or a device'


def leads_outside(path):
    """Whether a relative path, with slashes, is none or climbs above its start."""
    return path.startswith('/') or '..' in path.split('/') or '\0' in path


def copy_member(member, target):
    """Write a member's content to the file ``target``."""
    with member.open() as source, open(target, 'wb') as file:
        shutil.copyfileobj(source, file, CHUNK)


def copy_members(places, folder, advance):
    """Copy members into ``folder``; files that an earlier, interrupted call finished are kept.

    Args:
        places (Iterable[tuple[Member, str]]): Members and their paths below ``folder``.
        folder (Path): Made if it does not exist.
        advance (Callable[[int], None]): Told each file's size in bytes when it is there.
    """
    partial = folder / '.partial'  # no image has that name
    for member, place in places:
        target = folder / place
        if not (target.is_file() and target.stat().st_size == member.size):
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target, partial):
                copy_member(member, partial)
        advance(member.size)


def staging_path(target):
    """Where ``target`` is unpacked before it is renamed: beside it, on the same file system."""
    target = Path(target).resolve()  # a rename would replace a link instead of following it
    return target.with_name(f'.{target.name}.unpacking')


def remove(path):
    """Remove a file or a folder, which need not exist."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
