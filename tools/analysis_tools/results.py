#!/usr/bin/env python
"""Trains, tests and reports the rows of docs/RESULTS.md (configs/results/rows.yml).

    python tools/analysis_tools/results.py run camvid11/sparse_teacher --seed 0
    python tools/analysis_tools/results.py run             # all rows that have no result yet
    python tools/analysis_tools/results.py report          # writes tables and plots

A run is resumed where it stopped. Its result, a small JSON file, goes to docs/results/; checkpoints
stay in work_dirs/results/. Rows start from a dense network that is trained first if it is missing.
"""
import argparse
import json
import os
import os.path as osp
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The checkout serves without being installed.
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.fileio import load  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

import dynsp_mm  # noqa: E402, F401  registers the backbones, whatever the config imports
from dynsp_mm import cli, record_decisions  # noqa: E402
from dynsp_mm.analysis import count_macs  # noqa: E402

CONFIGS, RESULTS = ROOT / 'configs/results', ROOT / 'docs/results'
RUNS = Path('work_dirs/results')
COUNTED = 20  # images on which multiply-adds are averaged


class Meter(Hook):
    """Realised keep ratios over all tested images, multiply-adds over the first ones."""
    priority = 'VERY_LOW'

    def __init__(self, log):
        self.log = log
        self.sums, self.images = {}, 0
        self.inputs = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for name, decisions in self.log.by_predictor().items():
            total = sum(float(decision.keep_ratio.sum()) for decision in decisions)
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.images += sum(len(decision.keep_ratio) for decision in decisions) * (
                name == next(iter(self.sums)))
        self.log.clear()

    @property
    def ratios(self):
        return [round(total / self.images, 6) for total in self.sums.values()]


def mean_macs(backbone, images):
    """Multiply-adds of a backbone, averaged over the first images of a test."""
    counts = [count_macs(backbone, image) for image in images]
    return sum(counts) / len(counts)


def evaluate(runner):
    """Metrics of a runner's model on the test set, realised ratios and multiply-adds."""
    images = []

    def keep(module, args):
        images.extend(args[0][:max(0, COUNTED - len(images))].split(1))

    with record_decisions(runner.model) as log:
        meter = Meter(log)
        runner.register_hook(meter)
        handle = runner.model.backbone.register_forward_pre_hook(keep)
        metrics = runner.test()
        handle.remove()
    return metrics, meter.ratios, mean_macs(runner.model.backbone, images)


def read_rows():
    """The table of rows: set -> its description."""
    return load(CONFIGS / 'rows.yml')


def result_path(dataset, row, seed):
    return RESULTS / dataset / f'{row}_seed{seed}.json'


def train_scalars(work_dir):
    """Everything that a run logged while training, in order, resumed parts too."""
    lines = []
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def make_config(dataset, row, seed, rows):
    """Config of a row, and whether it is trained."""
    spec = rows[dataset]['rows'][row]
    source = rows[dataset]['rows'][spec['of']] if 'of' in spec else spec
    options = {**source.get('options', {}), **spec.get('options', {}), 'randomness.seed': seed}
    if 'budget_of' in spec:
        path = result_path(dataset, spec['budget_of'], seed)
        if not path.is_file():
            raise cli.UserError(f'{dataset}/{row} needs the result of {spec["budget_of"]} first')
        options['model.backbone.keep_ratios'] = json.loads(path.read_text())['keep_ratios']
    cfg = cli.load_config(str(CONFIGS / f'{source["config"]}.py'), options)
    cfg.work_dir = str(RUNS / dataset / spec.get('of', row) / f'seed{seed}')
    cli.set_dataloader_defaults(cfg)
    return cfg, 'of' not in spec


def start(dataset, rows):
    """Trains the dense network that a set's rows start from, unless it is there."""
    cfg = cli.load_config(str(CONFIGS / f'{rows[dataset]["start"]}.py'))
    name = f'epoch_{cfg.train_cfg.max_epochs}.pth'
    work_dir = osp.join('work_dirs', rows[dataset]['start'])
    if osp.isfile(osp.join(work_dir, name)):
        return
    if rows[dataset]['start'] != 'imagenette_pretrain':
        start('imagenette112', rows)
    cfg.work_dir = work_dir
    cli.set_dataloader_defaults(cfg)
    cli.enable_resume(cfg, 'auto')
    cli.build_runner(cfg).train()


def run(dataset, row, seed, rows):
    """Trains and tests a row and writes its result."""
    start(dataset, rows)
    cfg, trained = make_config(dataset, row, seed, rows)
    begin = time.time()
    if trained:
        cli.enable_resume(cfg, 'auto')
        runner = cli.build_runner(cfg)
        runner.train()
    else:
        latest = Path(cfg.work_dir) / 'last_checkpoint'
        if not latest.is_file():
            raise cli.UserError(f'{dataset}/{row} needs the checkpoint of its source: {latest} '
                                'does not exist')
        cfg.load_from = latest.read_text().strip()
        cfg.work_dir = osp.join(cfg.work_dir, row)
        runner = Runner.from_cfg(cfg)
    metrics, ratios, macs = evaluate(runner)
    spec = rows[dataset]
    log = train_scalars(cfg.work_dir) if trained else []
    result = dict(
        dataset=dataset, row=row, seed=seed, metric=spec['metric'],
        value=metrics[spec['metric']] * spec['scale'], metrics=metrics, keep_ratios=ratios,
        macs=macs, config=cfg.filename and osp.relpath(cfg.filename, ROOT),
        options=spec['rows'][row].get('options', {}), seconds=round(time.time() - begin),
        threads=torch.get_num_threads(), torch=torch.__version__, commit=commit(), log=log)
    path = result_path(dataset, row, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(result, default=float) + '\n')
    os.replace(partial, path)
    print(f'{dataset}/{row} seed {seed}: {spec["metric"]} {result["value"]:.2f}')


def commit():
    """The checkout's commit, None outside of one."""
    done = subprocess.run(['git', '-C', str(ROOT), 'rev-parse', '--short', 'HEAD'],
                          capture_output=True, text=True)
    return done.stdout.strip() or None


def parse_args():
    parser = argparse.ArgumentParser(description='Rows of docs/RESULTS.md')
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('run', help='train and test a row, or all that have no result')
    one.add_argument('row', nargs='?', help='SET/ROW, such as camvid11/sparse; default: all')
    one.add_argument('--seed', type=int, help='default: all seeds of the row')
    return parser.parse_args()


def main():
    args = parse_args()
    rows = read_rows()
    known = [f'{dataset}/{row}' for dataset, spec in rows.items() for row in spec['rows']]
    if args.row is not None and args.row not in known:
        raise cli.UserError(f'row {args.row!r}: must be one of {", ".join(known)}')
    for name in known if args.row is None else [args.row]:
        dataset, row = name.split('/')
        seeds = range(rows[dataset]['rows'][row]['seeds']) if args.seed is None else [args.seed]
        for seed in seeds:
            if args.row is not None and args.seed is not None \
                    or not result_path(dataset, row, seed).is_file():
                run(dataset, row, seed, rows)


if __name__ == '__main__':
    cli.run_tool(main)
