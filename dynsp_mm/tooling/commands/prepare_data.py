"""Check COCO 2017, ADE20K or ImageNet-1k; unpack archives that are downloaded already.

    python tools/prepare_data.py coco
    python tools/prepare_data.py coco --archives ~/downloads
    python tools/prepare_data.py imagenet --root /big/disk/imagenet --archives /big/disk

Says of each item whether it is present, incomplete or missing, and for what is missing which
archive to download and where to put it. Nothing is downloaded. With --archives, what is missing is
unpacked from the archives of these names into the places where the libraries' configs look:

  coco      train2017.zip, val2017.zip, annotations_trainval2017.zip; if they are there, also
            panoptic_annotations_trainval2017.zip and stuffthingmaps_trainval2017.zip
  ade20k    ADEChallengeData2016.zip
  imagenet  ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, and for the labels of the latter
            ILSVRC2012_devkit_t12.tar.gz or caffe_ilsvrc12.tar.gz

An item appears when it is whole; a killed run goes on where it was when it is started again. What
exists is never changed. The images themselves are not decoded.

Exit status: 0 complete, 1 something is missing or incomplete, 2 an error such as a damaged archive.
"""

import argparse
import sys
from functools import partial

from ...errors import UserError
from ..datasets import DATA_SETS, prepare


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data_set', choices=DATA_SETS)
    roots = ', '.join(data_set.root for data_set in DATA_SETS.values())
    parser.add_argument('--root', help=f"the configs' data_root (default: {roots})")
    parser.add_argument(
        '--archives',
        nargs='+',
        default=[],
        action='extend',
        metavar='FOLDER',
        help='where to look for archives',
    )
    parser.add_argument(
        '--allow-subset',
        action='store_true',
        help='fewer images and classes than published are complete, too, if '
        'annotations and images agree',
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        complete = prepare(
            args.data_set,
            DATA_SETS[args.data_set],
            args.root,
            args.archives,
            args.allow_subset,
            log=partial(print, flush=True),
        )
    except OSError as error:
        raise UserError(str(error)) from error
    if not complete:
        sys.exit(1)
