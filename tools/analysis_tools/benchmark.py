#!/usr/bin/env python
"""Speed, multiply-adds and memory of backbones or whole models against the first one named.

    python tools/analysis_tools/benchmark.py dynamic_swin_t --sparse 0.7 0.5
    python tools/analysis_tools/benchmark.py mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py \\
        --dense --sparse 0.7 --part backbone model --dtype float32 bf16 --device cuda --csv out.csv
    python tools/analysis_tools/benchmark.py dynamic_swin_s stvit_swin_s \\
        dynamic_swin_s@keep_ratios=0.9,0.7,0.5@window_size=8 --shape 800 1344 --batch 1 8

A candidate is a config file, a config of a library, or a backbone of create_backbone, and what
changes in it: @sparse=RATIO swaps its Swin or ConvNeXt for the sparse counterpart, @dense for that
with every position kept, @KEY=VALUE sets an argument of the backbone, @model.KEY=VALUE an entry of
the config. --dense and --sparse add such candidates for each one named.

Candidates take turns in one process; the time ratio is that to the baseline in the same round.
--part model is the model's forward with mode='predict' on random images that went through its data
preprocessor, with all that follows the network, such as box suppression; random weights find
nothing, so detectors paste no masks. Reduced precision is a cast of weights and input for a
backbone, autocast for a whole model, in training, and with --autocast, as backbones of the
libraries may need, whose masks stay float32.
Beside them stand bounds of the machine: the rates of a large matrix product and of a large copy.
Multiply-adds are those of the backbone, for whole models too.
All have the first one's random weights where names and shapes agree. The cost of selection by
threshold depends on weights and images: give --checkpoint, and take the figures for random images.
"""

import argparse
import itertools
import logging
import sys
import time
from pathlib import Path
from typing import NamedTuple

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from dynsp_mm.analysis import count_macs, held_memory, machine, peak_memory_of, time_in_turns
from dynsp_mm.analysis.bounds import larger_bounds, measure_bounds
from dynsp_mm.analysis.latency import synchronizer
from dynsp_mm.analysis.measurements import Measurement, format_table, to_csv, to_json, write_whole
from dynsp_mm.analysis.steps import decides, inference_step, training_step
from dynsp_mm.families import MIN_SIDE
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling.candidates import build_alike, find_candidates, make_ready, read_weights


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('candidates', nargs='+', metavar='CANDIDATE', help='the first is the baseline')
    add('--dense', action='store_true', help='also CANDIDATE@dense of each')
    add(
        '--sparse',
        nargs='+',
        default=[],
        metavar='RATIO',
        help='also CANDIDATE@sparse=RATIO of each: 0.7, or a ratio per predictor, 0.7,0.5,0.3',
    )
    add('--part', nargs='+', choices=['backbone', 'model'], default=['backbone'])
    add('--batch', nargs='+', type=int, default=[1], metavar='N', help='images (default: 1)')
    add(
        '--shape',
        nargs=2,
        type=int,
        action='append',
        metavar=('H', 'W'),
        help='image size in pixels; may be repeated (default: 800 1216)',
    )
    add('--dtype', nargs='+', choices=list(machine.DTYPES), default=['float32'])
    add('--autocast', action='store_true', help='reduced precision by autocast for backbones too')
    add(
        '--train',
        action='store_true',
        help='time training steps: forward, backward, AdamW; '
        'with the keep-ratio loss where there are predictors',
    )
    add(
        '--teacher',
        action='store_true',
        help='with --train: sparse candidates also learn from a '
        'dense teacher of their own architecture, with the losses that SpatialSparsityHook adds',
    )
    cli.add_backend_option(parser)
    add(
        '--release-weights',
        action='store_true',
        help='prepared backbones let go of the weights that they hold in another layout',
    )
    add('--compile', action='store_true', help='torch.compile each backbone; none is prepared then')
    add('--checkpoint', metavar='FILE', help='weights for what fits of each candidate')
    add('--device', default='cpu', help='such as cuda or cuda:1 (default: cpu)')
    add('--threads', type=int, metavar='N', help="of the CPU (default: torch's choice)")
    add('--rounds', type=int, default=20, metavar='N', help='timed rounds at least (default: 20)')
    add('--warmup', type=int, default=3, metavar='N', help='rounds before them (default: 3)')
    add(
        '--min-time',
        type=float,
        default=0.0,
        metavar='SECONDS',
        help='timed rounds of a setting go on for this long',
    )
    add('--csv', type=Path, metavar='FILE', help='the measurements; written after each setting')
    add('--json', type=Path, metavar='FILE', help='with hardware, versions and the command line')
    return parser.parse_args()


def check_args(args):
    """Raise a :class:`cli.UserError` for what cannot be measured, before anything is."""
    args.shape = args.shape or [[800, 1216]]
    cli.check_least(
        ('--rounds', [args.rounds], 1),
        ('--warmup', [args.warmup], 0),
        ('--min-time', [args.min_time], 0),
        ('--batch', args.batch, 1),
        ('--threads', [] if args.threads is None else [args.threads], 1),
        ('--shape', sum(args.shape, []), MIN_SIDE),
    )
    if args.teacher and not args.train:
        raise cli.UserError('--teacher: only training has a teacher; add --train')
    if args.teacher and args.compile:
        raise cli.UserError('--teacher and --compile: a compiled backbone takes no teacher')
    if args.backend not in ('auto', None) and (args.train or args.compile):
        raise cli.UserError(
            f'--backend {args.backend}: only inference without --compile runs prepared backbones'
        )
    if args.release_weights and (args.train or args.compile or args.backend is None):
        raise cli.UserError(
            '--release-weights: only prepared backbones can do without weights; '
            'not with --train, --compile or --backend none'
        )
    if args.csv and args.csv == args.json:
        raise cli.UserError(f'--csv and --json name the same file, {args.csv}')
    for option, path in (('--csv', args.csv), ('--json', args.json)):
        if path:
            cli.check_output(option, path)
    if args.checkpoint:
        cli.check_checkpoint(args.checkpoint, '--checkpoint')


# ---------------------------------------------------------------------- measuring
class Setting(NamedTuple):
    """What all candidates are measured in."""

    part: str
    batch: int
    size: tuple[int, int]
    dtype: str

    def __str__(self):
        height, width = self.size
        return f'{self.part}, batch {self.batch}, {height} x {width}, {self.dtype}'


def measure(candidates, setting, args, device, weights):
    """A :class:`Measurement` of each candidate; its ``rate_share`` is filled by :func:`share`."""
    dtype = machine.DTYPES[setting.dtype]
    backend = None if args.compile else args.backend
    names, backends, macs, held, steps = [], [], [], [], []
    for candidate, (model, batch) in zip(
        candidates,
        build_alike(
            candidates, setting.part, setting.batch, setting.size, device, args.train, weights
        ),
    ):
        macs.append(count_macs(model.backbone, batch['inputs']) // setting.batch)
        taught = args.teacher and decides(model)
        if args.train:
            backends.append(None)
            names.append('training with teacher' if taught else 'training')
            autocast = dtype
        else:
            backends.append(
                make_ready(
                    model, batch, setting.part, dtype, args.autocast, backend, args.release_weights
                )
            )
            names.append('inference')
            # What is cast already needs none.
            autocast = torch.float32 if batch['inputs'].dtype == dtype else dtype
        held.append(held_memory(model.backbone if setting.part == 'backbone' else model))
        if args.compile:
            model.backbone = torch.compile(model.backbone)
        if args.train:
            steps.append(
                training_step(
                    model, batch, device, autocast, candidate.model_cfg if taught else None
                )
            )
        else:
            steps.append(inference_step(model, batch, device, autocast))
    if args.teacher and 'training with teacher' not in names:
        raise cli.UserError('--teacher: no candidate is sparse, so none has a teacher')
    timings = time_in_turns(steps, args.rounds, args.warmup, args.min_time, synchronizer(device))
    rows = []
    for candidate, name, backend, timing, count, bytes_held, step in zip(
        candidates, names, backends, timings, macs, held, steps
    ):
        images_per_s = setting.batch / timing.seconds
        rows.append(
            Measurement(
                part=setting.part,
                step=name,
                compiled=args.compile,
                batch=setting.batch,
                height=setting.size[0],
                width=setting.size[1],
                dtype=setting.dtype,
                candidate=candidate.label,
                images_per_s=images_per_s,
                median_s=timing.seconds,
                ratio=timing.ratio,
                ratio_p20=timing.ratio_p20,
                ratio_p80=timing.ratio_p80,
                rounds=timing.rounds,
                macs=count,
                macs_ratio=count / macs[0] if macs[0] else None,
                peak_bytes=peak_memory_of(step, device),
                rate_share=None,
                backend=backend,
                held_bytes=bytes_held,
            )
        )
    return rows


def share(row, rates):
    """The measurement with the share of the rate of large products that it reached."""
    # Only there the counted multiply-adds are all that ran.
    if row.part == 'backbone' and row.step == 'inference':
        row = row._replace(rate_share=row.macs * row.images_per_s / rates[row.dtype])
    return row


def main():
    args = parse_args()
    check_args(args)
    device = machine.find_device(args.device)
    for name in args.dtype:
        machine.check_dtype(machine.DTYPES[name], device)
    if args.threads:
        torch.set_num_threads(args.threads)
    candidates = find_candidates(args.candidates, args.dense, args.sparse)
    for candidate in candidates:
        if candidate.named and 'model' in args.part:
            raise cli.UserError(f'{candidate.label} is a backbone: --part model needs configs')
    settings = [
        Setting(*values)
        for values in itertools.product(args.part, args.batch, map(tuple, args.shape), args.dtype)
    ]
    weights = read_weights(args.checkpoint) if args.checkpoint else None
    dtypes = {name: machine.DTYPES[name] for name in args.dtype}
    bounds = measure_bounds(device, dtypes)
    about = dict(machine.circumstances(device), bounds=bounds, failures=[], finished=False)
    rows = []
    for number, setting in enumerate(settings, 1):
        start = time.perf_counter()
        try:
            new = measure(candidates, setting, args, device, weights)
        except RuntimeError as error:  # memory, or an operator without this dtype: others may do
            reason = f'{type(error).__name__}: {machine.first_line(error)}'
            about['failures'].append(dict(setting=str(setting), reason=reason))
            print(f'[benchmark] {number}/{len(settings)} {setting}: {reason}', flush=True)
        else:
            # Again: while the first was measured, something else may have run.
            bounds = about['bounds'] = larger_bounds(bounds, measure_bounds(device, dtypes))
            rows = [share(row, bounds['macs_per_s']) for row in rows + new]
            new = rows[-len(new) :]
            print(
                f'[benchmark] {number}/{len(settings)} {setting}: {new[0].rounds} rounds, '
                f'{time.perf_counter() - start:.0f} s in all\n{format_table(new)}',
                flush=True,
            )
        about['finished'] = number == len(settings)
        for path, text in ((args.csv, to_csv(rows)), (args.json, to_json(rows, **about))):
            if path:
                write_whole(path, text)
    products = ', '.join(
        f'{rate / 1e9:.1f} GMAC/s in {name}' for name, rate in bounds['macs_per_s'].items()
    )
    print(
        f'[benchmark] bounds: matrix products {products}; copies '
        f'{bounds["copy_bytes_per_s"] / 1e9:.1f} GB/s',
        flush=True,
    )
    if about['failures']:
        raise cli.UserError(
            f'{len(about["failures"])} of {len(settings)} settings could not be '
            'measured; the first: {setting}: {reason}'.format(**about['failures'][0])
        )


if __name__ == '__main__':
    logging.disable(logging.WARNING)  # the initialisation of each layer
    cli.run_tool(main)
