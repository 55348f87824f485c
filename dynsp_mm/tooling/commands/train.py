"""Train a model of mmdet, mmseg or mmpretrain from a config.

python tools/train.py configs/maskrcnn_dyswin_t.py
python tools/train.py CONFIG --sparse 0.7 --from-dense dense.pth
python tools/train.py CONFIG --amp --resume --cfg-options train_dataloader.batch_size=4
tools/dist_train.sh CONFIG 8
"""

import argparse

from ..folder import check_folder
from ..options import (
    add_common_arguments,
    check_checkpoint,
    check_teachers,
    enable_amp,
    enable_auto_scale_lr,
    enable_from_dense,
    enable_resume,
    load_config,
    require,
    set_dataloader_defaults,
    set_launcher,
    set_work_dir,
)
from ..runs import run_checked


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
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
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.sparse)
    enable_from_dense(cfg, args.from_dense, args.cfg_options)
    require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    set_work_dir(cfg, args.work_dir, args.sparse)
    set_launcher(cfg, args.launcher, args.local_rank)
    set_dataloader_defaults(cfg)
    enable_amp(cfg, args.amp)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    # A config that resumes says the same as the option; load_from is then that of --from-dense.
    auto = 'auto' if args.from_dense and cfg.get('resume') else None
    enable_resume(cfg, args.resume or auto)
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from, 'load_from')
    check_teachers(cfg)
    check_folder(cfg)
    run_checked(cfg, ('train', 'val'), 'train')
