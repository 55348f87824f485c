r"""Speed, multiply-adds and memory of backbones or whole models against the first one named.

    python tools/analysis_tools/benchmark.py dynamic_swin_t --sparse 0.7 0.5
    python tools/analysis_tools/benchmark.py mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py \
        --dense --sparse 0.7 --part backbone model --dtype float32 bf16 --device cuda --csv out.csv
    python tools/analysis_tools/benchmark.py dynamic_swin_s stvit_swin_s \
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
import time
from pathlib import Path

import torch

from ...analysis import machine
from ...analysis.bounds import larger_bounds, measure_bounds
from ...analysis.measurements import format_table, to_csv, to_json
from ...errors import UserError
from ...files import write_whole
from ..candidates import find_candidates, read_weights
from ..measuring import Measurer, Setting, share
from ..options import add_backend_option, check_checkpoint, check_least, check_output
from ..runs import quiet


def parse_args(argv=None):
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
    add_backend_option(parser)
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
    return parser.parse_args(argv)


def check_args(args):
    """Raise a :class:`UserError` for what cannot be measured, before anything is."""
    args.shape = args.shape or [[800, 1216]]
    check_least(
        ('--rounds', [args.rounds], 1),
        ('--warmup', [args.warmup], 0),
        ('--min-time', [args.min_time], 0),
        ('--batch', args.batch, 1),
        ('--threads', [] if args.threads is None else [args.threads], 1),
        ('--shape', sum(args.shape, []), 1),
    )
    if args.teacher and not args.train:
        raise UserError('--teacher: only training has a teacher; add --train')
    if args.teacher and args.compile:
        raise UserError('--teacher and --compile: a compiled backbone takes no teacher')
    if args.backend not in ('auto', None) and (args.train or args.compile):
        raise UserError(
            f'--backend {args.backend}: only inference without --compile runs prepared backbones'
        )
    if args.release_weights and (args.train or args.compile or args.backend is None):
        raise UserError(
            '--release-weights: only prepared backbones can do without weights; '
            'not with --train, --compile or --backend none'
        )
    if args.csv and args.csv == args.json:
        raise UserError(f'--csv and --json name the same file, {args.csv}')
    for option, path in (('--csv', args.csv), ('--json', args.json)):
        if path:
            check_output(option, path)
    if args.checkpoint:
        check_checkpoint(args.checkpoint, '--checkpoint')


class Report:
    """Measurements so far: printed as they come, written to files after each setting."""

    def __init__(self, about, count, csv=None, json=None):
        self.about = dict(about, failures=[], finished=False)
        self.count, self.csv, self.json = count, csv, json
        self.rows = []

    def fail(self, number, setting, error):
        """Notes that a setting could not be measured."""
        reason = f'{type(error).__name__}: {machine.first_line(error)}'
        self.about['failures'].append(dict(setting=str(setting), reason=reason))
        print(f'[benchmark] {number}/{self.count} {setting}: {reason}', flush=True)

    def add(self, number, setting, rows, seconds, bounds):
        """Adds the measurements of a setting, and the bounds of the machine as they are now."""
        self.about['bounds'] = bounds
        self.rows = [share(row, bounds['macs_per_s']) for row in self.rows + rows]
        new = self.rows[-len(rows) :]
        print(
            f'[benchmark] {number}/{self.count} {setting}: {new[0].rounds} rounds, '
            f'{seconds:.0f} s in all\n{format_table(new)}',
            flush=True,
        )

    def write(self, finished):
        """Writes the files that were asked for, each whole."""
        self.about['finished'] = finished
        texts = ((self.csv, to_csv(self.rows)), (self.json, to_json(self.rows, **self.about)))
        for path, text in texts:
            if path:
                write_whole(path, text)

    def close(self):
        """Prints the bounds; raises a :class:`UserError` if a setting could not be measured."""
        bounds, failures = self.about['bounds'], self.about['failures']
        products = ', '.join(
            f'{rate / 1e9:.1f} GMAC/s in {name}' for name, rate in bounds['macs_per_s'].items()
        )
        print(
            f'[benchmark] bounds: matrix products {products}; copies '
            f'{bounds["copy_bytes_per_s"] / 1e9:.1f} GB/s',
            flush=True,
        )
        if failures:
            raise UserError(
                f'{len(failures)} of {self.count} settings could not be '
                'measured; the first: {setting}: {reason}'.format(**failures[0])
            )


@quiet()
def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    device = machine.find_device(args.device)
    dtypes = {name: machine.DTYPES[name] for name in args.dtype}
    for dtype in dtypes.values():
        machine.check_dtype(dtype, device)
    if args.threads:
        torch.set_num_threads(args.threads)
    measurer = Measurer(
        find_candidates(args.candidates, args.dense, args.sparse),
        device,
        rounds=args.rounds,
        warmup=args.warmup,
        min_time=args.min_time,
        train=args.train,
        teacher=args.teacher,
        compiled=args.compile,
        autocast=args.autocast,
        backend=args.backend,
        release_weights=args.release_weights,
        weights=read_weights(args.checkpoint) if args.checkpoint else None,
    )
    if 'model' in args.part:
        measurer.check_models()
    settings = [
        Setting(*values)
        for values in itertools.product(args.part, args.batch, map(tuple, args.shape), args.dtype)
    ]
    bounds = measure_bounds(device, dtypes)
    about = dict(machine.circumstances(device), bounds=bounds)
    report = Report(about, len(settings), args.csv, args.json)
    for number, setting in enumerate(settings, 1):
        start = time.perf_counter()
        try:
            rows = measurer.measure(setting)
        except RuntimeError as error:  # memory, or an operator without this dtype: others may do
            report.fail(number, setting, error)
        else:
            # Again: while the first was measured, something else may have run.
            bounds = larger_bounds(bounds, measure_bounds(device, dtypes))
            report.add(number, setting, rows, time.perf_counter() - start, bounds)
        report.write(number == len(settings))
    report.close()
