"""Print a config whose backbone is the sparse counterpart of another config's, for review.

    python tools/sparsify_config.py mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py 0.7
    python tools/sparsify_config.py my_config.py 0.7,0.5,0.3 > my_sparse_config.py
    python tools/sparsify_config.py my_config.py 0.7 --full

What is printed inherits the original and says only what changes. From a config in mmengine's python
style, which has no heirs outside its own folder or package, the whole is printed, as text.
`tools/train.py CONFIG --sparse 0.7` trains the same without a file.
"""

import argparse
import io
import os.path as osp
from contextlib import redirect_stdout

from mmengine.config import Config

from ...configuration.swap import parse_swap, sparsify
from ...configuration.whole import is_python_style, whole_text
from ..options import load_config


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Print the sparse form of a config')
    parser.add_argument('config', help="config file, or a library's own such as mmdet::...")
    parser.add_argument(
        'ratio',
        metavar='RATIO',
        help='keep ratio: 0.7, or one per predictor: 0.7,0.5,0.3; of several backbones that of '
        'the one named: model.student.backbone=0.7',
    )
    parser.add_argument(
        '--full', action='store_true', help='print the whole config instead of what changes'
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    # What libraries print when they are imported is not of the config.
    with redirect_stdout(io.StringIO()):
        text = sparse_text(args)
    print(text, end='')


def sparse_text(args):
    """The text of the sparse config."""
    cfg = load_config(args.config)
    changes = sparsify(cfg, *parse_swap(args.ratio))
    if args.full or is_python_style(cfg):
        return whole_text(cfg)
    base = args.config if '::' in args.config else osp.abspath(args.config)
    if base.startswith(('mmseg::', 'dynsp_mm::')):
        # mmengine knows no such base ('mmseg::' where that comes from another distribution).
        line = f"_base_ = __import__('dynsp_mm').config({base.removeprefix('dynsp_mm::')!r})"
    else:
        line = f'_base_ = {base!r}'
    return f'{line}\n{Config(changes).pretty_text}'
