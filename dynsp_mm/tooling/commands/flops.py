"""Multiply-adds of a config's backbone, sparse and dense, and the memory of a forward pass.

    python tools/analysis_tools/get_flops.py configs/maskrcnn_dyswin_t.py --shape 224 224
    python tools/analysis_tools/get_flops.py CONFIG --cfg-options model.backbone.keep_ratios=0.5
    python tools/analysis_tools/get_flops.py configs/maskrcnn_stvit_swin_t.py --memory

Counts fixed budgets (selection='topk'), also where the config selects by threshold.
"""

import argparse

import torch
from mmengine.registry import init_default_scope

from ...analysis import count_macs, peak_memory
from ...configuration.places import find_backbone
from ...configuration.types import type_name
from ..harness import build
from ..options import add_config_options, add_sparse_option, load_config, require
from ..runs import quiet


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description="Count a backbone's multiply-adds")
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(800, 1216),
        metavar=('H', 'W'),
        help='image size in pixels (default: 800 1216)',
    )
    parser.add_argument(
        '--memory',
        action='store_true',
        help='also measure the most memory that a forward pass holds at a time',
    )
    add_config_options(parser)
    add_sparse_option(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.sparse)
    require(cfg, 'model')
    init_default_scope(cfg.default_scope)
    # With a threshold the cost depends on the image; the ratios are counted as fixed budgets.
    config = dict(find_backbone(cfg).alone, init_cfg=None, selection='topk')
    if 'keep_ratios' not in config:
        del config['selection']  # a dense class of another library
    image = torch.zeros(1, config.get('in_channels', 3), *args.shape)
    backbone = build(config)
    macs = count_macs(backbone, image)
    name = type_name(config)
    line = f'{name} at {args.shape[0]} x {args.shape[1]}: {macs / 1e9:.3f} GMACs'
    others = []
    if getattr(backbone, 'keep_ratios', None):
        others = [('dense', build(dict(config, keep_ratios=None)))]
        dense = count_macs(others[0][1], image)
        line += (
            f' at keep ratios {backbone.keep_ratios}; dense {dense / 1e9:.3f}, '
            f'ratio {macs / dense:.3f}'
        )
    print(line)
    if args.memory:
        with quiet():  # the weights are random on purpose
            held = [
                f'{name} {peak_memory(model, image) / 2**20:.1f} MiB'
                for name, model in [(name, backbone), *others]
            ]
        print(
            'most memory held by a forward pass of one image, float32, beyond weights and input: '
            + '; '.join(held)
        )
