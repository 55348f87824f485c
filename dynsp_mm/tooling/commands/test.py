"""Test a checkpoint of an mmdet, mmseg or mmpretrain model.

python tools/test.py configs/maskrcnn_dyswin_t.py work_dirs/maskrcnn_dyswin_t/epoch_12.pth
python tools/test.py CONFIG CHECKPOINT --show-dir painted --out predictions.pkl
tools/dist_test.sh CONFIG CHECKPOINT 8
"""

import argparse

from ..options import (
    add_backend_option,
    add_common_arguments,
    check_checkpoint,
    enable_prepared,
    load_config,
    require,
    set_dataloader_defaults,
    set_launcher,
    set_work_dir,
)
from ..predictions import add_prediction_options, enable_dump, enable_tta, enable_visualization
from ..runs import run_checked


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_common_arguments(parser)
    add_prediction_options(parser)
    add_backend_option(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.sparse)
    require(cfg, 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    set_work_dir(cfg, args.work_dir, args.sparse)
    set_launcher(cfg, args.launcher, args.local_rank)
    set_dataloader_defaults(cfg)
    cfg.load_from = check_checkpoint(args.checkpoint)
    cfg.resume = False
    enable_visualization(cfg, args.show, args.show_dir, args.wait_time)
    enable_prepared(cfg, args.backend)
    if args.tta:
        enable_tta(cfg)
    if args.out:
        enable_dump(cfg, args.out)
    run_checked(cfg, ('test',), 'test')
