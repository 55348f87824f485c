#!/usr/bin/env python
"""Print a config whose backbone is the sparse counterpart of another config's, for review.

    python tools/sparsify_config.py mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py 0.7
    python tools/sparsify_config.py my_config.py 0.7,0.5,0.3 > my_sparse_config.py
    python tools/sparsify_config.py my_config.py 0.7 --full

What is printed inherits the original and says only what changes. `tools/train.py CONFIG --sparse
0.7` trains the same without a file.
"""

import argparse
import os.path as osp
import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.config import Config

from dynsp_mm.configuration.swap import parse_ratios, sparsify
from dynsp_mm.tooling import options as cli


def parse_args():
    parser = argparse.ArgumentParser(description='Print the sparse form of a config')
    parser.add_argument('config', help="config file, or a library's own such as mmdet::...")
    parser.add_argument(
        'ratio', metavar='RATIO', help='keep ratio: 0.7, or one per predictor: 0.7,0.5,0.3'
    )
    parser.add_argument(
        '--full', action='store_true', help='print the whole config instead of what changes'
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = cli.load_config(args.config)
    try:
        changes = sparsify(cfg, parse_ratios(args.ratio))
    except ValueError as error:
        raise cli.UserError(str(error)) from error
    if args.full:
        print(cfg.pretty_text)
        return
    base = args.config if '::' in args.config else osp.abspath(args.config)
    if base.startswith(('mmseg::', 'dynsp_mm::')):
        # Unknown to mmengine until this package is imported ('mmseg::' where mmseg comes from
        # another distribution); custom_imports are read too late for a base.
        print('# mmengine knows this base once the package is imported.')
        print(f"_base_ = [__import__('dynsp_mm') and {base!r}]")
    else:
        print(f'_base_ = {base!r}')
    print(Config(changes).pretty_text, end='')


if __name__ == '__main__':
    cli.run_tool(main)
