"""The parts of a data set: each can be checked, and unpacked from the archive it comes in."""

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from ..data_check import COCO_KEYS, load_coco
from .archives import (
    ArchiveError,
    NotInArchive,
    copy_member,
    copy_members,
    leads_outside,
    open_archive,
    open_member,
    remove,
)
from .imagenet_labels import CAFFE, DEVKIT, read_labels

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
class Part:
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
        """(What is there, list of problems) of a part that is not absent."""
        raise NotImplementedError

    def _choose(self, members, source, request):
        """List of (member of the archive, its path below the part's own)."""
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
class File(Part):
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
            absent = sorted(set(map(str, names)) - set(_images(folder)))
            if absent and any(folder.iterdir()):
                problems.append(
                    f'{len(absent)} of the {len(names)} images that it lists are not '
                    f'in {self.images}, such as {absent[0]} (if those are lost, move '
                    f'{self.images} away and unpack it anew)'
                )
        detail = (
            f'{_image_count(len(names), self.count)}, {len(content["annotations"])} '
            f'annotations, {len(content["categories"])} categories'
        )
        return detail, problems


@dataclass(frozen=True)
class ImageFolder(Part):
    """A folder of images, without subfolders; ``labels`` is that of their label maps, if any."""

    labels: str | None = None

    def _look(self, request):
        folder = request.root / self.path
        if not folder.is_dir():
            return '', ['is no folder']
        names = _images(folder)
        problems = _number_problems(len(names), self.count, request)
        if self.labels and (request.root / self.labels).is_dir():
            labels = set(map(_stem, _images(request.root / self.labels)))
            bare = sorted(name for name in names if _stem(name) not in labels)
            if bare and labels:
                problems.append(
                    f'{len(bare)} images have no label map in {self.labels}, such as {bare[0]}'
                )
        return _image_count(len(names), self.count), problems

    def _choose(self, members, source, request):
        chosen = []
        for member in members:
            folder, name = posixpath.split(member.name)
            if folder == self.member and _is_image(name):
                chosen.append((member, name))
        self._check_number(len(chosen), self.count, 'images', source, request)
        return chosen


@dataclass(frozen=True)
class ImageNetSplit(Part):
    """Images of ImageNet as mmpretrain's ImageNet dataset reads them.

    That is a folder per class, unless ``meta/<split>.txt`` exists: then what that lists. The
    dataset numbers the classes by the order of all folders, so the splits must have the same.
    """

    classes: int = 0
    other: str = ''

    def _look(self, request):
        folder = request.root / self.path
        if not folder.is_dir():
            return '', ['is no folder']
        listed = _meta_places(request.root, self.path)
        if listed is not None:
            return self._look_listed(folder, listed, request)
        counts = {entry.name: len(_images(entry)) for entry in _folders(folder)}
        total = sum(counts.values())
        problems = []
        if not counts:
            return '', [
                f'{len(_images(folder))} images, but no class folder, and no '
                f'meta/{self.path}.txt with their labels'
            ]
        if len(counts) > self.classes or (len(counts) < self.classes and not request.allow_subset):
            problems.append(f'expected {self.classes} classes, found {len(counts)}')
        problems += _number_problems(total, self.count, request)
        empty = sorted(name for name, count in counts.items() if not count)
        if empty:
            problems.append(f'{len(empty)} classes have no image, such as {empty[0]}')
        other = {entry.name for entry in _folders(request.root / self.other)}
        strays = sorted(set(counts) ^ other)
        if other and strays and _meta_places(request.root, self.other) is None:
            problems.append(
                f'its classes are not those of {self.other}: {strays[0]} is only in '
                f'one of them ({len(strays)} such)'
            )
        detail = f'{_image_count(total, self.count)}, {len(counts)} classes'
        if len(counts) < self.classes:
            detail += " (for a subset of the classes, use dataset type='CustomDataset')"
        return detail, problems

    def _look_listed(self, folder, listed, request):
        names = set(_images(folder))
        for entry in _folders(folder):
            names |= {f'{entry.name}/{name}' for name in _images(entry)}
        problems = _number_problems(len(listed), self.count, request)
        absent = sorted(set(listed) - names)
        if absent:
            problems.append(
                f'{len(absent)} of the {len(listed)} images in meta/{self.path}.txt '
                f'are not there, such as {absent[0]}'
            )
        return f'{_image_count(len(listed), self.count)}, by meta/{self.path}.txt', problems


@dataclass(frozen=True)
class ImageNetTrain(ImageNetSplit):
    """Comes as a tar file of a tar file per class, which are read where they lie."""

    def _choose(self, members, source, request):
        chosen = [
            (member, _stem(member.name))
            for member in members
            if re.fullmatch(r'n\d{8}\.tar', member.name)
        ]
        self._check_number(len(chosen), self.classes, 'classes', source, request)
        return chosen

    def unpack(self, source, staging, request, advance):
        current = staging / '.class'
        with open_archive(source) as classes:
            for member, name in self._choose(classes, source, request):
                if not (staging / name).is_dir():
                    remove(current)
                    current.mkdir(parents=True)
                    with open_member(member, source) as images:
                        copy_members(
                            [
                                (image, image.name)
                                for image in images
                                if '/' not in image.name and _is_image(image.name)
                            ],
                            current,
                            lambda size: None,
                        )
                    os.replace(current, staging / name)
                advance(member.size)


@dataclass(frozen=True)
class ImageNetVal(ImageNetSplit):
    """Comes as one flat tar file; the labels, and so the folders, come from elsewhere."""

    def obstacle(self, request):
        if _meta_places(request.root, self.path) is not None or any(
            request.find(name) for name in (DEVKIT, CAFFE)
        ):
            return None
        return (
            f'{self.archive.name} has no labels: put {DEVKIT} (from the same page) or {CAFFE} '
            f'(http://dl.caffe.berkeleyvision.org/{CAFFE}) beside it'
        )

    def _choose(self, members, source, request):
        listed = _meta_places(request.root, self.path)
        if listed is not None:
            places = {posixpath.basename(place): place for place in listed}
        else:
            name = next(name for name in (DEVKIT, CAFFE) if request.find(name))
            places = {
                image: f'{wnid}/{image}' for image, wnid in read_labels(request.find(name)).items()
            }
        images = [member for member in members if '/' not in member.name and _is_image(member.name)]
        self._check_number(len(images), self.count, 'images', source, request)
        unknown = sorted(member.name for member in images if member.name not in places)
        if unknown:
            raise ArchiveError(
                f'archive {source}: {len(unknown)} images have no label, such as {unknown[0]}'
            )
        return [(member, places[member.name]) for member in images]


def _stem(name):
    return posixpath.splitext(name)[0]


def _is_image(name):
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')


def _images(folder):
    """Names of the images that lie directly in a folder."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _is_image(entry.name)]


def _folders(folder):
    """Entries of the subfolders, hidden ones too: mmpretrain takes those for classes as well."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_dir()]


def _meta_places(root, split):
    """The paths that ``meta/<split>.txt`` lists, or None if there is no such file."""
    path = root / 'meta' / f'{split}.txt'
    if not path.is_file():
        return None
    places = [line.rpartition(' ')[0] for line in path.read_text().splitlines() if line.strip()]
    for place in places:
        if not place or leads_outside(place):
            raise ValueError(
                f'{path}: each line must be a path below {split}/ and a label; got '
                f'{place!r} as a path'
            )
    return places


def _image_count(found, expected):
    return f'{found} images' + (f' (published: {expected})' if found != expected else '')


def _number_problems(found, expected, request):
    if not found:
        return [f'expected {expected} images, found none']
    if found < expected and not request.allow_subset:
        return [f'expected {expected} images, found {found}']
    return []
