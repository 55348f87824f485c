"""Archives in the published form, with a handful of images, and tables that expect as many."""

import io
import json
import tarfile
import zipfile
from dataclasses import replace

from dynsp_mm.tooling.datasets import DATA_SETS

WNIDS = ('n01440764', 'n01443537', 'n01484850')
NUM_TRAIN, NUM_VAL = 4, 2
CLASS_IMAGES = 3  # of each ImageNet class in train
VAL_LABELS = (2, 0, 1, 0)  # indices into WNIDS


def image(name):
    """Content that differs from image to image; nothing decodes it."""
    return b'image ' + name.encode() * 50


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files, mode='w'):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return path


def add(archive, name, content=b'', **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


def nested(write, files):
    """Bytes of an archive."""
    buffer = io.BytesIO()
    if write is write_zip:
        write_zip(buffer, files)
    else:
        with tarfile.open(fileobj=buffer, mode='w') as archive:
            for name, content in files.items():
                add(archive, name, content)
    return buffer.getvalue()


def names(count, suffix='.jpg'):
    return [f'{i:012}{suffix}' for i in range(1, count + 1)]


def coco_json(count):
    return json.dumps(
        dict(
            images=[dict(id=i, file_name=name) for i, name in enumerate(names(count))],
            annotations=[dict(id=1, image_id=0, category_id=1)],
            categories=[dict(id=1, name='cat')],
        )
    ).encode()


def coco_archives(folder, panoptic=False):
    folder.mkdir(exist_ok=True)
    annotations = {}
    for split, count in (('train2017', NUM_TRAIN), ('val2017', NUM_VAL)):
        write_zip(
            folder / f'{split}.zip',
            {
                f'{split}/': b'',
                **{f'{split}/{name}': image(name) for name in names(count)},
                f'__MACOSX/{split}/._{names(1)[0]}': b'x',
            },
        )
        annotations[f'annotations/instances_{split}.json'] = coco_json(count)
        annotations[f'annotations/captions_{split}.json'] = b'{}'
    write_zip(folder / 'annotations_trainval2017.zip', annotations, zipfile.ZIP_DEFLATED)
    if panoptic:
        files = {}
        for split, count in (('train2017', NUM_TRAIN), ('val2017', NUM_VAL)):
            files[f'annotations/panoptic_{split}.json'] = b'{}'
            files[f'annotations/panoptic_{split}.zip'] = nested(
                write_zip,
                {f'panoptic_{split}/{name}': image(name) for name in names(count, '.png')},
            )
        write_zip(folder / 'panoptic_annotations_trainval2017.zip', files, zipfile.ZIP_DEFLATED)
    return folder


def ade_archives(folder):
    folder.mkdir(exist_ok=True)
    top, files = 'ADEChallengeData2016', {}
    for split, count in (('training', NUM_TRAIN), ('validation', NUM_VAL)):
        for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
            files.update(
                {f'{top}/{kind}/{split}/{name}': image(name) for name in names(count, suffix)}
            )
    files[f'{top}/objectInfo150.txt'] = b'Idx'
    write_zip(folder / f'{top}.zip', {**files, f'{top}/sceneCategories.txt': b'a'})
    return folder


def train_images(wnid):
    return {f'{wnid}_{i}.JPEG': image(f'{wnid}{i}') for i in range(CLASS_IMAGES)}


def val_images():
    return {f'ILSVRC2012_val_{i:08}.JPEG': image(str(i)) for i in range(1, len(VAL_LABELS) + 1)}


def imagenet_archives(folder, labels='caffe'):
    folder.mkdir(exist_ok=True)
    write_tar(
        folder / 'ILSVRC2012_img_train.tar',
        {f'{wnid}.tar': nested(write_tar, train_images(wnid)) for wnid in WNIDS},
    )
    write_tar(folder / 'ILSVRC2012_img_val.tar', val_images())
    if labels == 'caffe':
        write_tar(
            folder / 'caffe_ilsvrc12.tar.gz',
            {
                './synsets.txt': '\n'.join(WNIDS).encode(),
                './val.txt': ''.join(
                    f'{name} {label}\n' for name, label in zip(val_images(), VAL_LABELS)
                ).encode(),
            },
            'w:gz',
        )
    elif labels == 'devkit':
        import numpy as np
        from scipy.io import savemat

        # The ids of ImageNet's own are not in the order of the WordNet ids.
        order = (1, 2, 0)
        synsets = np.zeros((3, 1), [('ILSVRC2012_ID', 'O'), ('WNID', 'O'), ('words', 'O')])
        for i, index in enumerate(order):
            synsets[i, 0] = (i + 1.0, WNIDS[index], 'a, b')
        buffer = io.BytesIO()
        savemat(buffer, dict(synsets=synsets))
        top = 'ILSVRC2012_devkit_t12/data'
        write_tar(
            folder / 'ILSVRC2012_devkit_t12.tar.gz',
            {
                f'{top}/meta.mat': buffer.getvalue(),
                f'{top}/ILSVRC2012_validation_ground_truth.txt': ''.join(
                    f'{order.index(label) + 1}\n' for label in VAL_LABELS
                ).encode(),
            },
            'w:gz',
        )
    return folder


MAKE = dict(coco=coco_archives, ade20k=ade_archives, imagenet=imagenet_archives)


def tiny(key):
    """The table of a data set, with the numbers of the archives above."""
    counts = {
        118287: NUM_TRAIN,
        5000: NUM_VAL,
        20210: NUM_TRAIN,
        2000: NUM_VAL,
        50000: len(VAL_LABELS),
        1281167: CLASS_IMAGES * len(WNIDS),
        0: 0,
    }
    items = []
    for item in DATA_SETS[key].items:
        changes = dict(count=counts[item.count])
        if key == 'imagenet':
            changes['classes'] = len(WNIDS)
        items.append(replace(item, **changes))
    return replace(DATA_SETS[key], items=tuple(items))


def tree(folder):
    """Relative path -> content of all files below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }
