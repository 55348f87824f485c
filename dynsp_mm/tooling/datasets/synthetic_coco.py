"""A small instance-segmentation data set in COCO 2017 layout, drawn from a seed.

Four classes of object, each with its own shape, texture and family of hues, lie on muted
backgrounds and occlude each other. They are easy enough for a detector to be trained from
scratch in a few minutes on a CPU.

Needs OpenCV (``cv2``) and pycocotools, which MMDetection brings along.
"""

import colorsys
import json
import logging
import math
import os
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ...errors import UserError, check_counts
from ...files import replacing_folder

__all__ = ['CLASSES', 'PALETTE', 'generate']

CLASSES = ('ringed_disk', 'striped_box', 'checkered_triangle', 'dotted_star')
PALETTE = [(220, 50, 47), (38, 110, 220), (40, 170, 70), (235, 200, 30)]

GENERATOR = 'dynsp_mm.tooling.datasets.synthetic_coco'
VERSION = '1.0'  # to be raised whenever the same arguments give another data set

MIN_SIDE = 64  # px; below it, the smallest objects would crowd the image
MIN_VISIBLE_FRACTION = 0.25  # of the whole object, for it to be annotated
MIN_VISIBLE_AREA = 60  # px

_SPLITS = ('train2017', 'val2017')
_HUES = (0.0, 0.60, 0.36, 0.145)  # one per class, a full turn is 1
_log = logging.getLogger(__name__)


def _regular(radii):
    """Vertices ``(n, 2)`` at equal angles and the given distances from the origin."""
    angle = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.asarray(radii)[:, None]


# Outlines in the unit circle, one per class; the square is turned to lie on its side.
_OUTLINES = (
    _regular([1.0] * 48),
    _regular([1.0] * 4) @ np.array([[1, 1], [-1, 1]]) / 2**0.5,
    _regular([1.0] * 3),
    _regular([1.0, 0.5] * 5),
)
# Two-tone patterns, one per class, as functions of object coordinates in radians; the
# sign of the value selects the tone.
_TEXTURES = (
    lambda u, v, phase: np.sin(np.hypot(u, v) + phase[0]),
    lambda u, v, phase: np.sin(u + phase[0]),
    lambda u, v, phase: 2 * np.sin(u + phase[0]) * np.sin(v + phase[1]),
    lambda u, v, phase: 2 * np.cos(u + phase[0]) * np.cos(v + phase[1]) + 0.6,
)


def _background(rng, height, width):
    """A greyish RGB picture, float ``(height, width, 3)``, mostly in [0, 1]."""
    y, x = np.mgrid[:height, :width] - np.array([height, width]).reshape(2, 1, 1) / 2
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * x + np.sin(angle) * y  # px
    kind = rng.integers(4)
    # Each picture has one dominant pattern over a weak gradient and weak noise.
    gain = rng.uniform(0.3, 0.5) if kind == 0 else rng.uniform(0.0, 0.2)
    grey = rng.uniform(0.3, 0.7) + gain * across / max(height, width)
    if kind == 1:  # low-frequency noise
        cells = rng.normal(0, 0.11, rng.integers(4, 9, 2))
        grey += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == 2:  # fine noise
        grey += rng.normal(0, 0.07, (height, width))
    elif kind == 3:  # parallel lines
        grey += rng.uniform(0.04, 0.1) * np.sin(2 * np.pi * across / rng.uniform(6, 20))
    tint = rng.uniform(-0.04, 0.04, 3)
    return grey[..., None] + tint + rng.normal(0, 0.015, (height, width, 3))


def _draw_object(rng, label, radius, offset):
    """One object, centred ``offset`` in [0, 1) px past the corner of a patch's middle pixel.

    Returns its RGB ``(n, n, 3)`` and its coverage ``(n, n)``, both float in [0, 1].
    """
    half = math.ceil(radius) + 1
    centre = half + offset  # (x, y), in px from the patch's corner
    n = 2 * half + 1
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    squeeze = np.array([1.0, rng.uniform(0.75, 1.0)])

    # Drawn 4 times as large, then averaged. fillPoly counts from pixel centres, and `shift=4`
    # gives it coordinates in 1/16 px.
    vertices = (_OUTLINES[label] * squeeze * radius) @ turn + centre
    fine = np.zeros((4 * n, 4 * n), np.uint8)
    cv2.fillPoly(fine, [np.rint((vertices * 4 - 0.5) * 16).astype(np.int32)], 255, shift=4)
    coverage = cv2.resize(fine, (n, n), interpolation=cv2.INTER_AREA) / 255.0

    points = np.stack(np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5), axis=-1) - centre
    points = points @ turn.T * (2 * np.pi * rng.uniform(1.2, 1.8) / radius)
    pattern = _TEXTURES[label](points[..., 0], points[..., 1], rng.uniform(0, 2 * np.pi, 2))
    weight = np.clip(0.5 + 1.5 * pattern, 0, 1)[..., None]
    hue = (_HUES[label] + rng.uniform(-0.025, 0.025)) % 1.0
    light = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.65, 0.9), rng.uniform(0.85, 1.0)))
    dark = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.8, 1.0), rng.uniform(0.4, 0.55)))
    return weight * light + (1 - weight) * dark, coverage


def _draw_image(rng, height, width):
    """One image, RGB uint8 ``(height, width, 3)``, and its ``(label, mask)`` pairs.

    A mask is the visible part of an object, bool ``(height, width)``.
    """
    smallest, largest = max(20, 0.16 * min(height, width)), 0.47 * min(height, width)
    pad = math.ceil(largest / 2) + 2  # room for what sticks out, cropped in the end
    picture = _background(rng, height + 2 * pad, width + 2 * pad)
    owner = np.full(picture.shape[:2], -1)  # which object is on top
    objects = []  # (label, area of the whole object in px)
    for index in range(int(rng.integers(2, 6))):
        label = int(rng.integers(len(CLASSES)))
        radius = rng.uniform(smallest, largest) / 2
        # Objects stick out of the image by so little that the last one, which none covers, is
        # always annotated: no image is without annotation.
        centre = rng.uniform(0.8 * radius, np.array([width, height]) - 0.8 * radius)
        corner = np.floor(centre).astype(int)
        colour, coverage = _draw_object(rng, label, radius, centre - corner)

        top, left = corner[::-1] + pad - len(coverage) // 2
        patch = np.s_[top : top + len(coverage), left : left + len(coverage)]
        alpha = coverage[..., None]
        picture[patch] = alpha * colour + (1 - alpha) * picture[patch]
        owner[patch][coverage >= 0.5] = index
        objects.append((label, np.count_nonzero(coverage >= 0.5)))

    picture += rng.normal(0, 0.01, picture.shape)  # sensor noise, over everything
    picture, owner = picture[pad:-pad, pad:-pad], owner[pad:-pad, pad:-pad]
    instances = []
    for index, (label, whole) in enumerate(objects):
        visible = owner == index
        if np.count_nonzero(visible) >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_FRACTION * whole):
            instances.append((label, visible))
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8), instances


def _polygons(mask):
    """Polygons in COCO's ``[x0, y0, x1, y1, ...]`` form that pycocotools rasterises to ``mask``.

    A mask with a hole, which one outline cannot express, is cut in two through the hole.
    """
    # On a grid twice as fine, the contour through the outer pixels' centres lies a quarter
    # pixel inside the mask's edge: unlike on the mask's own grid, no pixel is lost to rounding.
    fine = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0]):
        if parent >= 0:
            cut = int(contour[..., 0].min() + contour[..., 0].max()) // 4
            columns = np.arange(mask.shape[1])
            return _polygons(mask & (columns < cut)) + _polygons(mask & (columns >= cut))
    return [((c.reshape(-1) + 0.5) / 2).tolist() for c in contours]


def _write_split(root, split, count, size, seed):
    height, width = size
    (root / split).mkdir()
    images, annotations = [], []
    for index in range(count):
        # A stream of its own per image: asking for more images does not change the first.
        rng = np.random.default_rng([seed, _SPLITS.index(split), index])
        picture, instances = _draw_image(rng, height, width)
        image_id = index + 1
        name = f'{image_id:012d}.png'
        if not cv2.imwrite(str(root / split / name), picture[..., ::-1]):
            raise OSError(f'cannot write {root / split / name}')
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for label, mask in instances:
            polygons = _polygons(mask)
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    iscrowd=0,
                    segmentation=polygons,
                    area=float(coco_mask.area(rle)),
                    bbox=coco_mask.toBbox(rle).tolist(),
                )
            )
    content = dict(
        info=dict(
            description=f'Synthetic shapes drawn by {GENERATOR}',
            generator=GENERATOR,
            version=VERSION,
            seed=seed,
        ),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[
            dict(id=i, name=name, supercategory='shape') for i, name in enumerate(CLASSES, start=1)
        ],
    )
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _read_manifest(root):
    """The manifest of a set made by this module, or None."""
    try:
        manifest = json.loads((root / 'manifest.json').read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get('generator') == GENERATOR
    return manifest if ours else None


def _is_complete(root, manifest):
    """Whether ``root`` holds all the files of the set that ``manifest`` describes."""
    arguments = manifest['arguments']
    return _read_manifest(root) == manifest and all(
        (root / 'annotations' / f'instances_{split}.json').is_file()
        and len(list((root / split).glob('*.png'))) == arguments[number]
        for split, number in zip(_SPLITS, ('num_train', 'num_val'))
    )


def generate(
    out_dir: str | os.PathLike,
    num_train: int = 120,
    num_val: int = 32,
    size: tuple[int, int] = (128, 160),
    seed: int = 0,
    force: bool = False,
) -> Path:
    """Makes the data set in ``out_dir``, or finds it there, and returns the folder's path.

    The layout is COCO 2017's: ``{train,val}2017/*.png`` (8-bit RGB, named by image id, ids
    from 1 in either split) and ``annotations/instances_{train,val}2017.json`` (category ids
    from 1, in the order of ``CLASSES``); ``manifest.json`` keeps the arguments. An annotation
    is the visible part of one object, as polygons that do not overlap others'. ``area`` (px)
    and ``bbox`` (``[x, y, width, height]``, px) are float and agree with the polygons as
    pycocotools rasterises them. Objects of which less than 25 % or 60 px is visible are not
    annotated. Every image has at least one annotation, and depends on seed, split, index and
    size alone: the first ``n`` images stay the same when more are asked for.

    The set appears in ``out_dir`` whole or not at all. A complete set made with the same
    arguments is reused, which is logged at level INFO.

    Args:
        out_dir: Folder to make, with its parents. It may exist if it is empty or holds such a
            set.
        num_train: Training images, >= 1.
        num_val: Validation images, >= 1.
        size: Height and width of the images in px, each >= 64. Objects are 20 to 60 px across at
            the default, and scale with the shorter side, but not below 20 px.
        seed: >= 0.
        force: Make the set anew in place of one that is there, of whatever arguments, whole or
            damaged. A folder without this module's manifest is never replaced.

    Raises:
        UserError: An argument is out of its range.
        FileExistsError: ``out_dir`` holds something that may not be replaced.
        OSError: The files cannot be written.
    """
    check_counts(num_train=num_train, num_val=num_val)
    check_counts(0, seed=seed)
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise UserError(f'size={size!r}: must be a pair (height, width)')
    check_counts(MIN_SIDE, **{f'size[{i}]': side for i, side in enumerate(size)})
    # Plain ones, which JSON takes.
    num_train, num_val, seed, size = int(num_train), int(num_val), int(seed), [*map(int, size)]
    manifest = dict(
        generator=GENERATOR,
        version=VERSION,
        arguments=dict(num_train=num_train, num_val=num_val, size=size, seed=seed),
    )

    out_dir = Path(out_dir)
    target = out_dir.resolve()  # a rename would not follow a link
    occupied = target.is_file() or (target.is_dir() and any(target.iterdir()))
    if occupied and not force and _is_complete(target, manifest):
        _log.info('reusing the complete data set in %s', out_dir)
        return out_dir
    if occupied and not (force and _read_manifest(target)):
        raise FileExistsError(
            f'{out_dir} exists and is not a complete set made with the same arguments; nothing '
            f'is overwritten unless force=True, and then only a set made by {GENERATOR}'
        )

    with replacing_folder(target) as made:
        (made / 'annotations').mkdir()
        for split, count in zip(_SPLITS, (num_train, num_val)):
            _write_split(made, split, count, size, seed)
        (made / 'manifest.json').write_text(json.dumps(manifest, indent=2) + '\n')
    return out_dir
