#!/usr/bin/env python
"""Train a model of mmdet, mmseg or mmpretrain from a config.

python tools/train.py configs/maskrcnn_dyswin_t.py
python tools/train.py CONFIG --sparse 0.7 --from-dense dense.pth
python tools/train.py CONFIG --amp --resume --cfg-options train_dataloader.batch_size=4
tools/dist_train.sh CONFIG 8
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
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    cli.add_common_arguments(parser)
    parser.add_argument(
        '--from-dense',
        metavar='CHECKPOINT',
        help='start from the checkpoint of the dense model and keep that as the '
        'teacher: sets load_from and the teacher of the sparse training hook',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by batch size / base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue a run: from the latest checkpoint in the work directory, '
        'or from the one named',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options)
    cli.enable_sparse(cfg, args.sparse)
    cli.enable_from_dense(cfg, args.from_dense)
    cli.require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    cli.set_work_dir(cfg, args.work_dir)
    cli.set_launcher(cfg, args.launcher, args.local_rank)
    cli.set_dataloader_defaults(cfg)
    cli.enable_amp(cfg, args.amp)
    if args.auto_scale_lr:
        cli.enable_auto_scale_lr(cfg)
    cli.enable_resume(cfg, args.resume)
    if cfg.get('load_from'):
        cli.check_checkpoint(cfg.load_from, 'load_from')
    cli.check_teachers(cfg)
    run_checked(cfg, ('train', 'val'), 'train')


if __name__ == '__main__':
    cli.run_tool(main)
