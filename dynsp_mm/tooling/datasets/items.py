"""The files and folders of a data set: each can be checked, and unpacked from its archive."""

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from ..coco_file import COCO_KEYS, load_coco
from .archives import ArchiveError, NotInArchive, copy_member, copy_members, open_archive

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
PRESENT, INCOMPLETE, MISSING = 'present', 'incomplete', 'missing'


@dataclass(frozen=True)
class Archive:
    """A file to download: official name, address, rough size, and what else it takes."""

    name: str
    url: str
    size: str
    note: str = ''


@dataclass(frozen=True)
class Request:
    """What a user asked for: where the data shall lie, and where archives may be found."""

    root: Path
    folders: tuple[Path, ...] = ()
    allow_subset: bool = False

    def find(self, name):
        """Path of the archive of that name, or None."""
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)


@dataclass(frozen=True)
class Finding:
    """Outcome of a check: PRESENT, INCOMPLETE or MISSING, and a text."""

    status: str
    detail: str = ''


@dataclass(frozen=True)
class Item:
    """A file or folder that comes out of one archive and appears whole or not at all.

    Attributes:
        path: Below the data set's root.
        archive: What it comes in.
        member: Its path there.
        count: Images in the published set.
        optional: Whether the set is complete without it.
        inner: An archive within the archive in which ``member`` lies.
    """

    path: str
    archive: Archive
    member: str = ''
    count: int = 0
    optional: bool = False
    inner: str | None = None

    def is_absent(self, root):
        """Whether nothing is there that unpacking would have to leave as it is."""
        path = root / self.path
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))

    def check(self, request):
        """Return a :class:`Finding`."""
        if self.is_absent(request.root):
            return Finding(MISSING)
        detail, problems = self._look(request)
        if problems:
            return Finding(INCOMPLETE, '; '.join(problems))
        return Finding(PRESENT, detail)

    def obstacle(self, request):
        """Why the archive alone does not do, or None."""

    def measure(self, source, request):
        """Bytes that unpacking takes; raises an ArchiveError if it cannot succeed."""
        with open_archive(source, self.inner) as members:
            return sum(member.size for member, _ in self._choose(members, source, request))

    def unpack(self, source, staging, request, advance):
        """Unpack into the folder ``staging``, going on where an earlier call was killed."""
        with open_archive(source, self.inner) as members:
            copy_members(self._choose(members, source, request), staging, advance)

    def _look(self, request):
        """(What is there, list of problems) of an item that is not absent."""
        raise NotImplementedError

    def _choose(self, members, source, request):
        """List of (member of the archive, its path below the item's own)."""
        raise NotImplementedError

    def _check_number(self, found, expected, what, source, request):
        if not found:
            raise NotInArchive(f'archive {source} holds no {what} for {self.path}')
        if found < expected and not request.allow_subset:
            raise ArchiveError(
                f'archive {source} holds {found} {what} for {self.path}, the '
                f'published one {expected}: download it again, or accept it with '
                '--allow-subset'
            )


@dataclass(frozen=True)
class File(Item):
    """A file of which only the existence is checked."""

    def _look(self, request):
        is_file = (request.root / self.path).is_file()
        return '', [] if is_file else ['is no file']

    def _choose(self, members, source, request):
        chosen = [(member, '') for member in members if member.name == self.member]
        if not chosen:
            raise NotInArchive(f'archive {source} does not hold {self.member}')
        return chosen[:1]

    def unpack(self, source, staging, request, advance):
        with open_archive(source, self.inner) as members:
            ((member, _),) = self._choose(members, source, request)
            copy_member(member, staging)
            advance(member.size)


@dataclass(frozen=True)
class CocoFile(File):
    """An annotation file; ``images`` is the folder, below the root, of what it lists."""

    images: str = ''

    def _look(self, request):
        if not (request.root / self.path).is_file():
            return '', ['is no file']
        content, problem = load_coco(request.root / self.path)
        if problem:
            return '', [problem]
        for key in COCO_KEYS:
            entries = content.get(key)
            if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
                return '', [f'is not in COCO format: {key!r} is no list of objects']
        names = [image.get('file_name') for image in content['images']]
        problems = []
        if len(names) < self.count and not request.allow_subset:
            problems.append(f'expected {self.count} images, lists {len(names)}')
        if not names:
            problems.append('lists no image')
        # As text: a broken file may hold what cannot be hashed.
        ids = {str(image.get('id')) for image in content['images']}
        strays = sum(str(entry.get('image_id')) not in ids for entry in content['annotations'])
        if strays:
            problems.append(f'{strays} annotations belong to no image that it lists')
        folder = request.root / self.images
        if folder.is_dir():
            absent = sorted(set(map(str, names)) - set(images_in(folder)))
            if absent and any(folder.iterdir()):
                problems.append(
                    f'{len(absent)} of the {len(names)} images that it lists are not '
                    f'in {self.images}, such as {absent[0]} (if those are lost, move '
                    f'{self.images} away and unpack it anew)'
                )
        detail = (
            f'{image_count(len(names), self.count)}, {len(content["annotations"])} '
            f'annotations, {len(content["categories"])} categories'
        )
        return detail, problems


@dataclass(frozen=True)
class ImageFolder(Item):
    """A folder of images, without subfolders; ``labels`` is that of their label maps, if any."""

    labels: str | None = None

    def _look(self, request):
        folder = request.root / self.path
        if not folder.is_dir():
            return '', ['is no folder']
        names = images_in(folder)
        problems = number_problems(len(names), self.count, request)
        if self.labels and (request.root / self.labels).is_dir():
            labels = set(map(stem, images_in(request.root / self.labels)))
            bare = sorted(name for name in names if stem(name) not in labels)
            if bare and labels:
                problems.append(
                    f'{len(bare)} images have no label map in {self.labels}, such as {bare[0]}'
                )
        return image_count(len(names), self.count), problems

    def _choose(self, members, source, request):
        chosen = []
        for member in members:
            folder, name = posixpath.split(member.name)
            if folder == self.member and is_image(name):
                chosen.append((member, name))
        self._check_number(len(chosen), self.count, 'images', source, request)
        return chosen


def stem(name):
    """A file's name without its suffix."""
    return posixpath.splitext(name)[0]


def is_image(name):
    """Whether a file is an image by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')


def images_in(folder):
    """Names of the images that lie directly in a folder."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if is_image(entry.name)]


def image_count(found, expected):
    """Number of images in words, with the published number where that differs."""
    return f'{found} images' + (f' (published: {expected})' if found != expected else '')


def number_problems(found, expected, request):
    """What is wrong with a number of images, as a list of at most one text."""
    if not found:
        return [f'expected {expected} images, found none']
    if found < expected and not request.allow_subset:
        return [f'expected {expected} images, found {found}']
    return []
