"""Makes a small synthetic instance-segmentation data set in COCO 2017 layout."""

import argparse
import json
import logging
from collections import Counter
from pathlib import Path

from ...errors import UserError
from ..datasets.synthetic_coco import CLASSES, generate


def summary(out_dir, split):
    """One line: the split's number of images, and of instances per class."""
    content = json.loads(Path(out_dir, 'annotations', f'instances_{split}.json').read_text())
    counts = Counter(annotation['category_id'] for annotation in content['annotations'])
    per_class = ', '.join(f'{name} {counts[i]}' for i, name in enumerate(CLASSES, start=1))
    return (
        f'{split}: {len(content["images"])} images, '
        f'{len(content["annotations"])} instances ({per_class})'
    )


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('out_dir', metavar='OUT_DIR', help='folder to make')
    parser.add_argument('--num-train', type=int, default=120, metavar='N', help='training images')
    parser.add_argument('--num-val', type=int, default=32, metavar='N', help='validation images')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(128, 160),
        metavar=('H', 'W'),
        help='height and width of the images in px',
    )
    parser.add_argument('--seed', type=int, default=0, metavar='S', help='seed of the whole set')
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace a set that this program made in OUT_DIR before',
    )
    return parser.parse_args(argv)


def main(argv=None):
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args(argv)
    try:
        out_dir = generate(
            args.out_dir, args.num_train, args.num_val, args.size, args.seed, args.force
        )
    except OSError as error:
        raise UserError(str(error)) from error
    for split in ('train2017', 'val2017'):
        print(summary(out_dir, split))
