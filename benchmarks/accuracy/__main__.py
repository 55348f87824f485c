"""Trains, tests and times the rows of docs/RESULTS.md (rows.yml).

    python -m benchmarks.accuracy run camvid11/sparse_teacher --seed 0
    python -m benchmarks.accuracy run             # all rows that have no result yet
    python -m benchmarks.accuracy time            # backbones in turns, on an idle machine
    python -m benchmarks.report results           # tables and plots of what there is

A run is resumed where it stopped. Its result, a small JSON file, goes to
benchmarks/accuracy/results/; checkpoints stay in work_dirs/results/. Rows start from a dense
network, which is trained first if it is missing.
"""

import argparse

from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling import runs

from .rows import read_rows, result_path
from .timing import time_backbones
from .train import run


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.accuracy',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('run', help='train and test a row, or all that have no result')
    one.add_argument('row', nargs='?', help='SET/ROW, such as camvid11/sparse; default: all')
    one.add_argument('--seed', type=int, help='default: all seeds of the row')
    commands.add_parser('time', help='time the backbones of all rows that have a result')
    return parser.parse_args()


def run_rows(args, rows):
    """The rows that the command line asks for; without ``--seed``, those that have no result."""
    known = [f'{dataset}/{row}' for dataset, spec in rows.items() for row in spec['rows']]
    if args.row is not None and args.row not in known:
        raise cli.UserError(f'row {args.row!r}: must be one of {", ".join(known)}')
    for name in known if args.row is None else [args.row]:
        dataset, row = name.split('/')
        seeds = range(rows[dataset]['rows'][row]['seeds']) if args.seed is None else [args.seed]
        for seed in seeds:
            if args.seed is not None or not result_path(dataset, row, seed).is_file():
                run(dataset, row, seed, rows)


def main():
    args = parse_args()
    rows = read_rows()
    if args.command == 'run':
        run_rows(args, rows)
    else:
        for dataset in rows:
            if result_path(dataset, 'dense', 0).is_file():
                time_backbones(dataset, rows)


if __name__ == '__main__':
    runs.run_tool(main)
