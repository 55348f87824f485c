"""Print a config whose backbone is the sparse counterpart of another config's, for review.

    python tools/sparsify_config.py mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py 0.7
    python tools/sparsify_config.py my_config.py 0.7,0.5,0.3 > my_sparse_config.py
    python tools/sparsify_config.py my_config.py 0.7 --full

What is printed inherits the original and says only what changes. `tools/train.py CONFIG --sparse
0.7` trains the same without a file.
"""

import argparse
import os.path as osp

from mmengine.config import Config

from ...configuration.swap import parse_ratios, sparsify
from ..options import load_config


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Print the sparse form of a config')
    parser.add_argument('config', help="config file, or a library's own such as mmdet::...")
    parser.add_argument(
        'ratio', metavar='RATIO', help='keep ratio: 0.7, or one per predictor: 0.7,0.5,0.3'
    )
    parser.add_argument(
        '--full', action='store_true', help='print the whole config instead of what changes'
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config)
    changes = sparsify(cfg, parse_ratios(args.ratio))
    if args.full:
        print(cfg.pretty_text)
        return
    base = args.config if '::' in args.config else osp.abspath(args.config)
    if base.startswith(('mmseg::', 'dynsp_mm::')):
        # mmengine knows no such base ('mmseg::' where that comes from another distribution).
        print(f"_base_ = __import__('dynsp_mm').config({base.removeprefix('dynsp_mm::')!r})")
    else:
        print(f'_base_ = {base!r}')
    print(Config(changes).pretty_text, end='')
