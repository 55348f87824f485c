"""Draw which regions of images a trained sparse model keeps, or what semantic tokens stand for.

    python tools/analysis_tools/visualize_decisions.py CONFIG CHECKPOINT --out-dir maps
    python tools/analysis_tools/visualize_decisions.py CONFIG CHECKPOINT --images a.jpg b.png

Without --images it draws the first --num images of the config's test set. Each picture shows
the network's input, then one panel per decision: kept regions outlined and in colour, the
others dimmed. With STViTSwin there is a row for each block in which semantic tokens are refined
and recovered from: the input, the region in which each token weighs most, and the weight that a
position receives on average from the tokens that see it (refine) or gives its strongest (recover).

Images have any number of channels and any kind of values: the pipeline of the test set reads them,
but for its steps that load annotations. One or two channels are drawn in grey, of more than three
the first three, and values that are not of bytes are stretched.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from ...errors import UserError
from ...visualization.run import draw_batches, image_batches
from ..data_check import explain_data_errors, find_data_problem
from ..options import (
    add_config_options,
    add_sparse_option,
    check_checkpoint,
    load_config,
    require,
    set_dataloader_defaults,
)
from ..runs import build_runner, check_weights, load_weights


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Draw kept regions or semantic tokens')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_config_options(parser)
    add_sparse_option(parser)
    parser.add_argument('--images', nargs='+', metavar='FILE', help='images to draw')
    parser.add_argument(
        '--num', type=int, default=8, help='how many of the test set (default: %(default)s)'
    )
    parser.add_argument(
        '--out-dir', default='keep_maps', help='where the pictures go (default: %(default)s)'
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.sparse)
    require(cfg, 'model', 'test_dataloader')
    set_dataloader_defaults(cfg)
    check_checkpoint(args.checkpoint)
    if args.num < 1:
        raise UserError(f'--num {args.num}: must be 1 or more')
    missing = [path for path in args.images or [] if not Path(path).exists()]
    if missing:
        raise UserError(f'--images: {missing[0]} does not exist')
    if args.images is None:
        problem = find_data_problem(cfg, ('test',))
        if problem:
            raise UserError(problem)
    loader = cfg.test_dataloader
    # A runner for its model and data; no loop or hook of the config runs, and what training
    # started from is not loaded.
    for name in (
        'train_dataloader',
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
        'val_dataloader',
        'val_cfg',
        'val_evaluator',
        'test_dataloader',
        'test_evaluator',
        'test_cfg',
        'custom_hooks',
        'load_from',
    ):
        cfg[name] = None
    cfg.resume = False
    cfg.log_level = 'WARNING'
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = build_runner(cfg)
        new = check_weights(runner.model, args.checkpoint, 'checkpoint')
        if new:
            print(
                f'{args.checkpoint} has no weights for {new} tensors that '
                'its network does not have: they are random, and so is what the pictures show',
                file=sys.stderr,
            )
        load_weights(runner.model, args.checkpoint)
        if args.images:
            batches, count = image_batches(loader.dataset, args.images), len(args.images)
        else:
            cfg.test_dataloader = loader
            with explain_data_errors(cfg, ('test',)):
                batches, count = runner.build_dataloader(loader), args.num
        for path in draw_batches(runner.model, batches, Path(args.out_dir), count):
            print(path)
