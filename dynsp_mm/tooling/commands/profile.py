r"""Where the time of a backbone's forward goes: predictors, gather and scatter, products, ...

    python tools/analysis_tools/profile_parts.py dynamic_swin_t@dense dynamic_swin_t@sparse=0.7
    python tools/analysis_tools/profile_parts.py dynamic_convnext_s@sparse=0.7 \
        mmpretrain::convnext/convnext-small_32xb128_in1k.py --device cuda --dtype bf16 --batch 8

Candidates are named as for benchmark.py. Each operator that torch's profiler sees belongs to one
operator class; the time is that on the device, in an accelerator's case that of its kernels. A
profiler slows what it looks at, most of all what lies between operators: the last column has the
time without it, and benchmark.py measures how candidates compare.
"""

import argparse
from pathlib import Path

import torch

from ...analysis import OPERATOR_CLASSES, machine, time_by_operator_class, time_in_turns
from ...analysis.latency import synchronizer
from ...analysis.measurements import align, to_json
from ...analysis.operators import OperatorTimes
from ...analysis.steps import inference_step
from ...files import write_whole
from ..candidates import build_alike, find_candidates, make_ready
from ..options import add_backend_option, check_least, check_output
from ..runs import quiet


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('candidates', nargs='+', metavar='CANDIDATE')
    add(
        '--shape',
        nargs=2,
        type=int,
        default=[800, 1216],
        metavar=('H', 'W'),
        help='image size in pixels (default: 800 1216)',
    )
    add('--batch', type=int, default=1, metavar='N', help='images (default: 1)')
    add('--dtype', choices=list(machine.DTYPES), default='float32')
    add(
        '--autocast',
        action='store_true',
        help='reduced precision by autocast, not by a cast of weights and images',
    )
    add_backend_option(parser)
    add('--device', default='cpu', help='such as cuda or cuda:1 (default: cpu)')
    add('--threads', type=int, metavar='N', help="of the CPU (default: torch's choice)")
    add('--rounds', type=int, default=5, metavar='N', help='profiled forwards (default: 5)')
    add('--warmup', type=int, default=2, metavar='N', help='forwards before them (default: 2)')
    add('--json', type=Path, metavar='FILE', help='with hardware, versions and the command line')
    return parser.parse_args(argv)


def format_profile(rows):
    """Markdown table: a line for each candidate, milliseconds and shares of each class."""
    cells = [['candidate', *OPERATOR_CLASSES, 'sum', 'without profiler']]
    for row in rows:
        cells.append(
            [
                row.candidate,
                *(
                    f'{row.seconds[kind] * 1e3:.2f} ({row.shares[kind]:.1%})'
                    for kind in OPERATOR_CLASSES
                ),
                f'{sum(row.seconds.values()) * 1e3:.2f}',
                f'{row.unprofiled_s * 1e3:.2f}',
            ]
        )
    return align(cells)


@quiet()
def main(argv=None):
    args = parse_args(argv)
    check_least(
        ('--rounds', [args.rounds], 1),
        ('--warmup', [args.warmup], 0),
        ('--batch', [args.batch], 1),
        ('--shape', args.shape, 1),
        ('--threads', [] if args.threads is None else [args.threads], 1),
    )
    if args.json:
        check_output('--json', args.json)
    device, dtype = machine.find_device(args.device), machine.DTYPES[args.dtype]
    machine.check_dtype(dtype, device)
    if args.threads:
        torch.set_num_threads(args.threads)
    candidates, size = find_candidates(args.candidates), tuple(args.shape)
    rows = []
    for candidate, (model, batch) in zip(
        candidates, build_alike(candidates, 'backbone', args.batch, size, device)
    ):
        make_ready(model, batch, 'backbone', dtype, args.autocast, args.backend)
        # What is cast already needs none.
        autocast = torch.float32 if batch['inputs'].dtype == dtype else dtype
        step = inference_step(model, batch, device, autocast)
        (timing,) = time_in_turns(
            [step], args.rounds, args.warmup, synchronize=synchronizer(device)
        )
        seconds = time_by_operator_class(step, device, args.rounds, args.warmup)
        rows.append(
            OperatorTimes(candidate.label, args.batch, *size, args.dtype, timing.seconds, seconds)
        )
    print(
        f'[profile] {args.batch} x {size[0]} x {size[1]}, {args.dtype}, {device}: ms (share), '
        f'mean of {args.rounds} forwards\n{format_profile(rows)}'
    )
    if args.json:
        write_whole(args.json, to_json(rows, **machine.circumstances(device)))
