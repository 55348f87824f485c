"""Convert a checkpoint of another program into the names of this package's backbones.

    python tools/convert_checkpoint.py SRC DST
    python tools/convert_checkpoint.py SRC DST --config configs/cascade_maskrcnn_stvit_swin_s.py

Understands, by their keys: the releases of DynamicSwin and DynamicConvNeXt
(raoyongming/DynamicViT) and of STViT-R (changsn/STViT-R and its object detection), official Swin,
Swin-V2 and ConvNeXt, those of timm and torchvision, and files of mmdet, mmseg and mmpretrain. Dense
ones become the dense parameters of a sparse model. SRC is a file, a URL or a name such as
mmcls://swin_tiny; DST ends in .pth (or .pt) or .safetensors. No code from SRC runs.

Prints what becomes of every key: mapped, dropped with the reason, or missing, that is needed by
the backbone and not in SRC, so that it starts new. An unknown key is an error. DST holds a model
of OpenMMLab's layout, for load_from or tools/test.py, or for
init_cfg=dict(type='Pretrained', checkpoint=DST). With this package's tools all of these take SRC
itself as well; OpenMMLab's own read .pth alone.
"""

import argparse
from pathlib import Path

from mmengine.registry import init_default_scope

from ...backbones.base import Backbone
from ...checkpoints import (
    backbone_config,
    convert_state_dict,
    find_arch,
    fit_state_dict,
    read_checkpoint_anywhere,
    unwrap,
    write_checkpoint,
)
from ...configuration.places import find_backbone
from ...configuration.types import type_name
from ...errors import UserError
from ..harness import build
from ..options import load_config, require


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Convert a checkpoint of another program')
    parser.add_argument('src', metavar='SRC', help='checkpoint to read')
    parser.add_argument('dst', metavar='DST', help='file to write')
    parser.add_argument(
        '--config',
        help="config whose backbone SRC is for; without it, the backbone is chosen by SRC's keys",
    )
    parser.add_argument(
        '--entry',
        metavar='NAME',
        help='entry of SRC that holds the weights, such '
        'as model_ema (default: state_dict, else model, else model_ema)',
    )
    parser.add_argument('--dry-run', action='store_true', help='only print the table')
    parser.add_argument('--force', action='store_true', help='replace an existing DST')
    return parser.parse_args(argv)


def target_config(args, weights):
    """Config of the backbone that is to load the weights."""
    if args.config is None:
        return backbone_config(weights)
    cfg = load_config(args.config)
    require(cfg, 'model')
    init_default_scope(cfg.default_scope)
    return dict(find_backbone(cfg).alone, init_cfg=None)


def report(conversion, fit, kind):
    """Print what becomes of each key, then how many there are of each."""
    dropped = list(conversion.dropped)
    count = 0
    for old, new in conversion.mapped:
        name = new.removeprefix('backbone.')
        if new != name and name in fit.unused:
            dropped.append((old, f'{kind} has no such parameter'))
            continue
        names = [f'backbone.{new_name}' for new_name in fit.split.get(name, ())] or [new]
        print(f'mapped   {old} -> {", ".join(names)}')
        count += 1
    for old, reason in dropped:
        print(f'dropped  {old} ({reason})')
    for note in fit.repairs.notes():
        print(f'changed  backbone.{note}')
    for name in fit.new:
        print(f'missing  backbone.{name} (its network does not have it; starts new)')
    for name in fit.missing:
        print(f'missing  backbone.{name} (not in SRC; starts new)')
    print(
        f'{conversion.source.name} ({find_arch(conversion.backbone).name}) for {kind}: '
        f'{count} keys mapped, {len(dropped)} dropped, {len(fit.new) + len(fit.missing)} missing'
    )


def main(argv=None):
    args = parse_args(argv)
    dst = Path(args.dst)
    if dst.is_dir():
        raise UserError(f'DST {dst} is a directory: must be a file')
    if dst.suffix not in ('.pth', '.pt', '.safetensors'):
        raise UserError(f'DST {dst}: must end in .pth, .pt or .safetensors')
    if dst.exists() and not (args.force or args.dry_run):
        raise UserError(f'DST {dst} exists; --force replaces it')
    try:
        checkpoint = read_checkpoint_anywhere(args.src)
    except UserError as error:
        raise UserError(f'SRC {error}') from error
    try:
        conversion = convert_state_dict(unwrap(checkpoint, args.entry))
        config = target_config(args, conversion.backbone)
        backbone = build(config)
        if not isinstance(backbone, Backbone):
            raise UserError(
                f'--config {args.config}: its backbone is a {type_name(config)}, '
                'none of this package'
            )
        fit = fit_state_dict(conversion.backbone, backbone)
        for name, (theirs, ours) in fit.repairs.new.items():
            raise UserError(
                f'{name} is for images of {theirs} channels, and the backbone of --config '
                f'has in_channels={ours}; convert without --config, and load it there: the stem '
                'then starts new'
            )
        if fit.unused and args.config is None:
            raise UserError(
                f'{len(fit.unused)} keys have no place in a {type_name(config)} of that '
                f'size, such as {fit.unused[0]}; is the checkpoint complete?'
            )
    except UserError as error:
        raise UserError(f'SRC {args.src}: {error}') from error
    kind = type(backbone).__name__
    report(conversion, fit, kind)
    others = {k: v for k, v in conversion.state_dict.items() if not k.startswith('backbone.')}
    state_dict = {
        f'backbone.{k}': v.clone() for k, v in fit.state_dict.items() if k not in fit.unused
    }
    if not args.dry_run:
        try:
            write_checkpoint({**state_dict, **others}, conversion.source.name, args.dst)
        except OSError as error:
            raise UserError(f'DST {dst} was not written: {error}') from error
        print(f'wrote {dst}')
