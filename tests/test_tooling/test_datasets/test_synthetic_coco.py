"""The synthetic COCO data set: its content, and how it treats what is already on disk."""

import json
import logging
import shutil

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')
coco_api = pytest.importorskip('pycocotools.coco')

from dynsp_mm.tooling.datasets import synthetic_coco  # noqa: E402
from dynsp_mm.tooling.datasets.synthetic_coco import CLASSES, PALETTE, generate  # noqa: E402

SMALL = dict(num_train=4, num_val=2, size=(64, 80), seed=3)


def contents(folder):
    """Every file below ``folder`` with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()
    }


def annotations(folder, split):
    return json.loads((folder / 'annotations' / f'instances_{split}.json').read_text())


@pytest.fixture(scope='module')
def default_set(tmp_path_factory):
    return generate(tmp_path_factory.mktemp('demo') / 'set', num_train=60, num_val=20)


@pytest.fixture
def small_set(tmp_path):
    return generate(tmp_path / 'set', **SMALL)


def test_layout(default_set):
    train, val = ([f'{i:012d}.png' for i in range(1, n + 1)] for n in (60, 20))
    assert sorted(contents(default_set)) == sorted(
        ['manifest.json']
        + [f'annotations/instances_{s}2017.json' for s in ('train', 'val')]
        + [f'train2017/{name}' for name in train]
        + [f'val2017/{name}' for name in val]
    )
    # Nothing of the temporary folder stays behind.
    assert [p.name for p in default_set.parent.iterdir()] == ['set']


def test_header(default_set):
    content = annotations(default_set, 'train2017')
    assert content['info']['generator'] == synthetic_coco.GENERATOR
    assert content['info']['version'] == synthetic_coco.VERSION
    assert content['info']['seed'] == 0
    assert content['licenses'] == []
    assert [(c['id'], c['name']) for c in content['categories']] == list(enumerate(CLASSES, 1))
    assert len(PALETTE) == len(CLASSES) == len(set(PALETTE))


@pytest.mark.parametrize('split', ['train2017', 'val2017'])
def test_annotations_agree_with_pycocotools(default_set, split):
    coco = coco_api.COCO(str(default_set / 'annotations' / f'instances_{split}.json'))
    seen = set()
    for image in coco.loadImgs(coco.getImgIds()):
        picture = cv2.imread(str(default_set / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3) == (128, 160, 3)
        instances = coco.loadAnns(coco.getAnnIds(image['id']))
        assert 1 <= len(instances) <= 5
        times_covered = np.zeros(picture.shape[:2], int)
        for instance in instances:
            mask = coco.annToMask(instance).astype(bool)
            times_covered += mask
            seen.add(instance['category_id'])
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert instance['area'] == mask.sum() >= synthetic_coco.MIN_VISIBLE_AREA
            assert instance['bbox'] == [cols[0], rows[0], np.ptp(cols) + 1, np.ptp(rows) + 1]
            assert instance['iscrowd'] == 0
            for polygon in instance['segmentation']:
                assert len(polygon) >= 6 and len(polygon) % 2 == 0
                assert 0 <= min(polygon) and max(polygon[::2]) <= 160
                assert max(polygon[1::2]) <= 128
        assert times_covered.max() == 1  # a pixel belongs to the topmost object only
        assert times_covered.mean() < 0.5  # most of an image is background
    assert seen == {1, 2, 3, 4}


def test_objects_are_colourful_and_backgrounds_are_not(default_set):
    coco = coco_api.COCO(str(default_set / 'annotations' / 'instances_val2017.json'))
    inside, outside = [], []
    for image in coco.loadImgs(coco.getImgIds()):
        picture = cv2.imread(str(default_set / 'val2017' / image['file_name'])).astype(int)
        chroma = picture.max(2) - picture.min(2)
        masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(image['id']))]
        objects = np.any(masks, axis=0)
        inside.append(np.median(chroma[objects]))
        outside.append(np.median(chroma[~objects]))
    assert min(inside) > 80 > 40 > max(outside)


def test_polygons_reproduce_masks_exactly():
    disk = np.hypot(*(np.mgrid[:40, :50] - 20)) < 15
    ring = disk & (np.hypot(*(np.mgrid[:40, :50] - 20)) > 6)
    diagonal = np.eye(40, 50, dtype=bool)  # pixels that touch at corners only
    two_holes = disk.copy()
    two_holes[12:16, 15:25] = two_holes[24:27, 20:21] = False
    at_the_border = np.zeros((40, 50), bool)
    at_the_border[30:, 45:] = at_the_border[0] = True
    rng = np.random.default_rng(0)
    for mask in (disk, ring, diagonal, two_holes, at_the_border, rng.random((40, 50)) < 0.6):
        polygons = synthetic_coco._polygons(mask)
        rles = synthetic_coco.coco_mask.frPyObjects(polygons, 40, 50)
        decoded = synthetic_coco.coco_mask.decode(synthetic_coco.coco_mask.merge(rles))
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize('size', [(64, 64), (64, 200), (300, 100)])
def test_every_image_has_an_instance(size):
    for index in range(40):
        picture, instances = synthetic_coco._draw_image(np.random.default_rng(index), *size)
        assert picture.shape == (*size, 3) and picture.dtype == np.uint8
        assert instances


def test_same_arguments_give_the_same_bytes(small_set, tmp_path):
    again = generate(tmp_path / 'again', **SMALL)
    assert contents(again) == contents(small_set)
    other = generate(tmp_path / 'other', **{**SMALL, 'seed': 4})
    assert (
        contents(other)['train2017/000000000001.png']
        != contents(small_set)['train2017/000000000001.png']
    )


def test_splits_differ(small_set):
    files = contents(small_set)
    assert files['train2017/000000000001.png'] != files['val2017/000000000001.png']


def test_first_images_do_not_depend_on_their_number(small_set, tmp_path):
    more = generate(tmp_path / 'more', **{**SMALL, 'num_train': 6, 'num_val': 3})
    few_files, more_files = contents(small_set), contents(more)
    for split in ('train2017', 'val2017'):
        images = [name for name in few_files if name.startswith(split)]
        assert images and all(more_files[name] == few_files[name] for name in images)
        few, longer = annotations(small_set, split), annotations(more, split)
        for key in ('images', 'annotations'):
            assert longer[key][: len(few[key])] == few[key]


def test_complete_set_is_reused(small_set, caplog):
    marker = small_set / 'train2017' / '000000000001.png'
    before = marker.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert generate(small_set, **SMALL) == small_set
    assert 'reusing' in caplog.text and str(small_set) in caplog.text
    assert marker.stat().st_mtime_ns == before


def test_other_arguments_are_refused_and_forced(small_set):
    before = contents(small_set)
    other = {**SMALL, 'num_train': 2}
    with pytest.raises(FileExistsError, match='force=True') as error:
        generate(small_set, **other)
    assert str(small_set) in str(error.value)
    assert contents(small_set) == before
    generate(small_set, **other, force=True)
    assert len(list((small_set / 'train2017').iterdir())) == 2
    assert [p.name for p in small_set.parent.iterdir()] == ['set']


def test_damaged_set_is_refused_and_forced(small_set):
    before = contents(small_set)
    (small_set / 'val2017' / '000000000002.png').unlink()
    with pytest.raises(FileExistsError):
        generate(small_set, **SMALL)
    generate(small_set, **SMALL, force=True)
    assert contents(small_set) == before


@pytest.mark.parametrize('force', [False, True])
def test_files_of_other_origin_are_never_removed(tmp_path, force):
    folder = tmp_path / 'precious'
    folder.mkdir()
    (folder / 'manifest.json').write_text('[]')
    file = tmp_path / 'file'
    file.write_text('text')
    for path in (folder, file):
        with pytest.raises(FileExistsError, match=path.name):
            generate(path, **SMALL, force=force)
    assert (folder / 'manifest.json').read_text() == '[]' and file.read_text() == 'text'


def test_empty_folder_and_missing_parents(tmp_path):
    (tmp_path / 'empty').mkdir()
    assert (generate(tmp_path / 'empty', **SMALL) / 'manifest.json').is_file()
    assert (generate(str(tmp_path / 'a' / 'b'), **SMALL) / 'manifest.json').is_file()


def test_failure_leaves_nothing_behind(small_set, monkeypatch):
    before = contents(small_set)
    monkeypatch.setattr(synthetic_coco.cv2, 'imwrite', lambda *_: False)
    with pytest.raises(OSError, match='cannot write'):
        generate(small_set, **SMALL, force=True)
    assert contents(small_set) == before
    shutil.rmtree(small_set)
    with pytest.raises(OSError, match='cannot write'):
        generate(small_set, **SMALL)
    assert not any(small_set.parent.iterdir())


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('num_train', 0, r'num_train=0: must be a whole number >= 1'),
        ('num_val', -2, r'num_val=-2: must be a whole number >= 1'),
        ('num_val', 2.0, r'num_val=2.0: must be a whole number >= 1'),
        ('num_train', True, r'num_train=True: must be a whole number >= 1'),
        ('seed', -1, r'seed=-1: must be a whole number >= 0'),
        ('size', (63, 80), r'size\[0\]=63: must be a whole number >= 64'),
        ('size', (64, 8), r'size\[1\]=8: must be a whole number >= 64'),
        ('size', 128, r'size=128: must be a pair \(height, width\)'),
        ('size', (64, 64, 3), r'size=\(64, 64, 3\): must be a pair'),
    ],
)
def test_arguments_out_of_range(tmp_path, name, value, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / 'set', **{**SMALL, name: value})
    assert not any(tmp_path.iterdir())
