"""The folders of ImageNet-1k, whose classes are folders or stand in a file of labels."""

import os
import posixpath
import re
from dataclasses import dataclass

from ...errors import UserError
from .archives import ArchiveError, copy_members, leads_outside, open_archive, open_member, remove
from .imagenet_labels import CAFFE, DEVKIT, read_labels
from .items import Item, image_count, images_in, is_image, number_problems, stem


@dataclass(frozen=True)
class ImageNetSplit(Item):
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
        counts = {entry.name: len(images_in(entry)) for entry in folders_in(folder)}
        total = sum(counts.values())
        problems = []
        if not counts:
            return '', [
                f'{len(images_in(folder))} images, but no class folder, and no '
                f'meta/{self.path}.txt with their labels'
            ]
        if len(counts) > self.classes or (len(counts) < self.classes and not request.allow_subset):
            problems.append(f'expected {self.classes} classes, found {len(counts)}')
        problems += number_problems(total, self.count, request)
        empty = sorted(name for name, count in counts.items() if not count)
        if empty:
            problems.append(f'{len(empty)} classes have no image, such as {empty[0]}')
        other = {entry.name for entry in folders_in(request.root / self.other)}
        strays = sorted(set(counts) ^ other)
        if other and strays and _meta_places(request.root, self.other) is None:
            problems.append(
                f'its classes are not those of {self.other}: {strays[0]} is only in '
                f'one of them ({len(strays)} such)'
            )
        detail = f'{image_count(total, self.count)}, {len(counts)} classes'
        if len(counts) < self.classes:
            detail += " (for a subset of the classes, use dataset type='CustomDataset')"
        return detail, problems

    def _look_listed(self, folder, listed, request):
        names = set(images_in(folder))
        for entry in folders_in(folder):
            names |= {f'{entry.name}/{name}' for name in images_in(entry)}
        problems = number_problems(len(listed), self.count, request)
        absent = sorted(set(listed) - names)
        if absent:
            problems.append(
                f'{len(absent)} of the {len(listed)} images in meta/{self.path}.txt '
                f'are not there, such as {absent[0]}'
            )
        return f'{image_count(len(listed), self.count)}, by meta/{self.path}.txt', problems


@dataclass(frozen=True)
class ImageNetTrain(ImageNetSplit):
    """Comes as a tar file of a tar file per class, which are read where they lie."""

    def _choose(self, members, source, request):
        chosen = [
            (member, stem(member.name))
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
                                if '/' not in image.name and is_image(image.name)
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
        images = [member for member in members if '/' not in member.name and is_image(member.name)]
        self._check_number(len(images), self.count, 'images', source, request)
        unknown = sorted(member.name for member in images if member.name not in places)
        if unknown:
            raise ArchiveError(
                f'archive {source}: {len(unknown)} images have no label, such as {unknown[0]}'
            )
        return [(member, places[member.name]) for member in images]


def folders_in(folder):
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
            raise UserError(
                f'{path}: each line must be a path below {split}/ and a label; got '
                f'{place!r} as a path'
            )
    return places
