#!/usr/bin/env python
"""Test a checkpoint of an mmdet, mmseg or mmpretrain model.

python tools/test.py configs/maskrcnn_dyswin_t.py work_dirs/maskrcnn_dyswin_t/epoch_12.pth
python tools/test.py CONFIG CHECKPOINT --show-dir painted --out predictions.pkl
tools/dist_test.sh CONFIG CHECKPOINT 8
"""

import argparse
import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dynsp_mm  # noqa: F401  registers the backbones, whatever the config imports
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling.data_check import run_checked


def parse_args():
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    cli.add_common_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='pickle all predictions to this file')
    parser.add_argument('--show', action='store_true', help='show each painted image in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save the painted images under DIR')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2.0,
        metavar='SECONDS',
        help='how long --show leaves a window open (default: %(default)s)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation by the config's tta_model and tta_pipeline",
    )
    cli.add_backend_option(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options)
    cli.enable_sparse(cfg, args.sparse)
    cli.require(cfg, 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    cli.set_work_dir(cfg, args.work_dir)
    cli.set_launcher(cfg, args.launcher, args.local_rank)
    cli.set_dataloader_defaults(cfg)
    cfg.load_from = cli.check_checkpoint(args.checkpoint)
    cfg.resume = False
    cli.enable_visualization(cfg, args.show, args.show_dir, args.wait_time)
    cli.enable_prepared(cfg, args.backend)
    if args.tta:
        cli.enable_tta(cfg)
    if args.out:
        cli.enable_dump(cfg, args.out)
    run_checked(cfg, ('test',), 'test')


if __name__ == '__main__':
    cli.run_tool(main)
