"""Check a data set, unpack what is missing from downloaded archives, say what to do next."""

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from .archives import ArchiveError, NotInArchive, remove, staging_path
from .items import INCOMPLETE, MISSING, PRESENT, Item, Request

MARGIN = 1.02  # files end in blocks that they do not fill
PERCENT = 5  # between two lines of progress


@dataclass
class _Job:
    """An item to unpack; ``size`` in bytes."""

    item: Item
    source: Path
    target: Path
    size: int

    @property
    def staging(self):
        return staging_path(self.target)


class _Progress:
    """Logs a line each time that another ``PERCENT`` of ``total`` bytes are done."""

    def __init__(self, name, total, log):
        self.name, self.total, self.log = name, max(total, 1), log
        self.done = self.next = 0

    def advance(self, size):
        self.done += size
        percent = 100 * self.done // self.total
        if percent >= self.next:
            self.log(f'{self.name}: {percent} %')
            self.next = percent - percent % PERCENT + PERCENT


def prepare(key, data_set, root=None, archives=(), allow_subset=False, log=print):
    """Unpack what is missing and can be found, then check the whole set and report.

    An item, such as a folder of images, is unpacked into a hidden folder beside its place and
    renamed when it is whole. One that was interrupted goes on where it was. What exists already is
    never changed.

    Args:
        key (str): Name of the set on the command line of ``tools/prepare_data.py``.
        data_set (DataSet): What to look for.
        root (str or Path, optional): Its place; may be a link. None is ``data_set.root``.
        archives (Sequence[str or Path]): Folders with archives under their official names; empty
            to check only.
        allow_subset (bool): Accept fewer images and classes than published, as long as
            annotations and images agree.
        log (Callable[[str], None]): Takes each line of the report.

    Returns:
        bool: Whether all items that are not optional are complete.

    Raises:
        ArchiveError: an archive is damaged or holds what it should not; it left nothing behind.
        UserError: a folder of ``archives`` does not exist, ``root`` is a file, or the disk has
            too little space.
        OSError: files cannot be read or written.
    """
    request = Request(
        Path(data_set.root if root is None else root), tuple(map(Path, archives)), allow_subset
    )
    for folder in request.folders:
        if not folder.is_dir():
            raise UserError(f'--archives {folder} is not a folder')
    if request.root.exists() and not request.root.is_dir():
        raise UserError(f'--root {request.root} is not a folder')
    jobs = _plan(data_set, request)
    _check_space(jobs)
    for job in jobs:
        _unpack(job, request, log)
    return _report(key, data_set, request, log)


def _plan(data_set, request):
    jobs = []
    for item in data_set.items:
        source = request.find(item.archive.name)
        if not source or not item.is_absent(request.root) or item.obstacle(request):
            continue
        try:
            size = item.measure(source, request)
        except NotInArchive:
            if item.optional:
                continue
            raise
        jobs.append(_Job(item, source, (request.root / item.path).resolve(), size))
    return jobs


def _check_space(jobs):
    """Raise a UserError if a file system has not the space for what is to lie on it."""
    needed = {}  # device -> (bytes, a path on it)
    for job in jobs:
        place = next(path for path in job.target.parents if path.exists())
        device = place.stat().st_dev
        missing = job.size * MARGIN - _size(job.staging)
        needed[device] = needed.get(device, (0, None))[0] + max(missing, 0), place
    for size, place in needed.values():
        free = shutil.disk_usage(place).free
        if size > free:
            raise UserError(
                f'unpacking takes {size / 1e9:.3f} GB, but only '
                f'{free / 1e9:.3f} GB are free at {place}; nothing was unpacked'
            )


def _size(path):
    """Bytes in a file or folder, which need not exist."""
    if path.is_file():
        return path.stat().st_size
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )


def _unpack(job, request, log):
    log(f'unpacking {job.source} to {job.target}')
    job.target.parent.mkdir(parents=True, exist_ok=True)
    progress = _Progress(job.item.path, job.size, log)
    try:
        job.item.unpack(job.source, job.staging, request, progress.advance)
    except ArchiveError:
        remove(job.staging)
        raise
    os.replace(job.staging, job.target)  # a folder takes the place of an empty one only


def _report(key, data_set, request, log):
    log(f'{data_set.title} in {request.root}')
    advice = {}  # text -> paths of the items that it is for
    complete = True
    width = max(len(item.path) for item in data_set.items if not item.optional)
    for item in data_set.items:
        finding = item.check(request)
        if item.optional and finding.status == MISSING:
            continue
        log(f'  {item.path:{width}}  {finding.status:{len(INCOMPLETE)}}  {finding.detail}'.rstrip())
        if finding.status != PRESENT:
            complete = complete and item.optional
            advice.setdefault(_advice(item, finding, request), []).append(item.path)
    for text, paths in advice.items():
        log(f'{", ".join(paths)}: {text}')
    if advice:
        folders = ' '.join(shlex.quote(str(folder)) for folder in request.folders)
        log(
            f'Then run: python tools/prepare_data.py {key} --root {shlex.quote(str(request.root))} '
            f'--archives {folders or "FOLDER"}' + ' --allow-subset' * request.allow_subset
        )
    return complete


def _advice(item, finding, request):
    """What the user has to do about an item that is not present."""
    archive, folder = item.archive, request.folders[0] if request.folders else 'FOLDER'
    note = f'; {archive.note}' if archive.note else ''
    download = f'download {archive.url} ({archive.size}{note}) to {folder}'
    if finding.status == INCOMPLETE:
        subset = (
            ''
            if request.allow_subset
            else ('; --allow-subset accepts fewer images, if annotations and images agree')
        )
        return f'mend it, or move it away (what exists is never changed) and {download}{subset}'
    staging = staging_path(request.root / item.path)
    if staging.exists():
        download += f' (an interrupted unpacking goes on from {staging})'
    return item.obstacle(request) if request.find(archive.name) else download
