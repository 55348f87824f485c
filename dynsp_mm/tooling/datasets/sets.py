"""The data sets that ``tools/prepare_data.py`` knows: their files, folders, archives and sizes.

Layouts are those that the libraries' configs expect of their ``data_root``: mmdet's for COCO 2017,
mmseg's for ADE20K, mmpretrain's for ImageNet-1k. Counts are the published ones.
"""

from dataclasses import dataclass

from .imagenet import ImageNetTrain, ImageNetVal
from .imagenet_labels import DEVKIT
from .items import Archive, CocoFile, File, ImageFolder, Item


@dataclass(frozen=True)
class DataSet:
    """A published set: its name, the configs' ``data_root``, its files and folders."""

    title: str
    root: str
    items: tuple[Item, ...]


def _coco():
    images = 'http://images.cocodataset.org/zips'
    files = 'http://images.cocodataset.org/annotations'
    annotations = Archive(
        'annotations_trainval2017.zip', f'{files}/annotations_trainval2017.zip', '241 MB'
    )
    panoptic = Archive(
        'panoptic_annotations_trainval2017.zip',
        f'{files}/panoptic_annotations_trainval2017.zip',
        '821 MB',
    )
    stuff = Archive(
        'stuffthingmaps_trainval2017.zip',
        'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
        'stuffthingmaps_trainval2017.zip',
        '659 MB',
    )
    required, optional = [], []
    for split, count, size in (('train2017', 118287, '18 GB'), ('val2017', 5000, '1 GB')):
        name = f'annotations/instances_{split}.json'
        required += [
            CocoFile(name, annotations, name, count, images=split),
            ImageFolder(
                split, Archive(f'{split}.zip', f'{images}/{split}.zip', size), split, count
            ),
        ]
        for kind in ('captions', 'person_keypoints'):
            name = f'annotations/{kind}_{split}.json'
            optional.append(File(name, annotations, name, optional=True))
        name = f'annotations/panoptic_{split}'
        optional += [
            # It lists label maps; those have the names of the images, but for the suffix.
            File(f'{name}.json', panoptic, f'{name}.json', optional=True),
            ImageFolder(
                name, panoptic, f'panoptic_{split}', count, optional=True, inner=f'{name}.zip'
            ),
            ImageFolder(f'stuffthingmaps/{split}', stuff, split, count, optional=True),
        ]
    return DataSet('COCO 2017', 'data/coco', (*required, *optional))


def _ade20k():
    top = 'ADEChallengeData2016'
    archive = Archive(
        f'{top}.zip', f'http://data.csail.mit.edu/places/ADEchallenge/{top}.zip', '923 MB'
    )
    items = []
    for split, count in (('training', 20210), ('validation', 2000)):
        labels = f'annotations/{split}'
        items += [
            ImageFolder(f'images/{split}', archive, f'{top}/images/{split}', count, labels=labels),
            ImageFolder(labels, archive, f'{top}/{labels}', count),
        ]
    items += [
        File(name, archive, f'{top}/{name}', optional=True)
        for name in ('objectInfo150.txt', 'sceneCategories.txt')
    ]
    return DataSet('ADE20K', f'data/ade/{top}', tuple(items))


def _imagenet():
    note = 'needs an account: https://image-net.org/challenges/LSVRC/2012/2012-downloads.php'

    def archive(name, size, *more):
        return Archive(
            name, f'https://image-net.org/data/ILSVRC/2012/{name}', size, '; '.join((note, *more))
        )

    return DataSet(
        'ImageNet-1k',
        'data/imagenet',
        (
            ImageNetTrain(
                'train',
                archive('ILSVRC2012_img_train.tar', '138 GB'),
                count=1281167,
                classes=1000,
                other='val',
            ),
            ImageNetVal(
                'val',
                archive(
                    'ILSVRC2012_img_val.tar',
                    '6.7 GB',
                    f'its labels are in {DEVKIT}, of the same page',
                ),
                count=50000,
                classes=1000,
                other='train',
            ),
        ),
    )


DATA_SETS = dict(coco=_coco(), ade20k=_ade20k(), imagenet=_imagenet())
