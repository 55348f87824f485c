#!/usr/bin/env python
"""Trains, tests and reports the rows of docs/RESULTS.md (configs/results/rows.yml).

    python tools/analysis_tools/results.py run camvid11/sparse_teacher --seed 0
    python tools/analysis_tools/results.py run             # all rows that have no result yet
    python tools/analysis_tools/results.py time            # backbones in turns, on an idle machine
    python tools/analysis_tools/results.py report          # writes tables and plots

A run is resumed where it stopped. Its result, a small JSON file, goes to docs/results/; checkpoints
stay in work_dirs/results/. Rows start from a dense network that is trained first if it is missing.
"""

import argparse
import json
import os.path as osp
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The checkout serves without being installed.
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.fileio import load  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from scipy import stats  # noqa: E402

import dynsp_mm  # noqa: E402, F401  registers the backbones, whatever the config imports
from dynsp_mm import record_decisions  # noqa: E402
from dynsp_mm.analysis import count_macs, time_in_turns  # noqa: E402
from dynsp_mm.analysis.machine import own_version  # noqa: E402
from dynsp_mm.analysis.measurements import write_whole  # noqa: E402
from dynsp_mm.checkpoints import load_pretrained  # noqa: E402
from dynsp_mm.tooling import options as cli  # noqa: E402

CONFIGS, RESULTS, TOOLS = ROOT / 'configs/results', ROOT / 'docs/results', ROOT / 'tools'
RUNS = Path('work_dirs/results')
COUNTED = 20  # images on which multiply-adds are averaged


class Meter(Hook):
    """Realised keep ratios over all tested images."""

    priority = 'VERY_LOW'

    def __init__(self, log):
        self.log = log
        self.sums, self.images = {}, 0

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for name, decisions in self.log.by_predictor().items():
            total = sum(float(decision.keep_ratio.sum()) for decision in decisions)
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.images += sum(len(decision.keep_ratio) for decision in decisions) * (
                name == next(iter(self.sums))
            )
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
        images.extend(image[None] for image in args[0][: max(0, COUNTED - len(images))])

    with record_decisions(runner.model) as log:
        meter = Meter(log)
        runner.register_hook(meter)
        handle = runner.model.backbone.register_forward_pre_hook(keep)
        metrics = runner.test()
        handle.remove()
    return metrics, meter.ratios, mean_macs(runner.model.backbone, images)


def write_json(path, content):
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, default=float) + '\n')


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
        # A ratio of 0 is written as one that is too small for any position.
        options['model.backbone.keep_ratios'] = [
            max(ratio, 1e-6) for ratio in json.loads(path.read_text())['keep_ratios']
        ]
    cfg = cli.load_config(str(CONFIGS / f'{source["config"]}.py'), options)
    cfg.work_dir = str(RUNS / dataset / spec.get('of', row) / f'seed{seed}')
    cli.set_dataloader_defaults(cfg)
    return cfg, 'of' not in spec


def ensure(checkpoint):
    """Trains the network of work_dirs/NAME/epoch_N.pth by its config, unless the file is there.

    What that network starts from is ensured before. It trains in a process of its own: visualizers
    of one name are shared within a process, so the row's log would go where the first one's goes.
    """
    if osp.isfile(checkpoint):
        return
    config = CONFIGS / f'{Path(checkpoint).parent.name}.py'
    initial = cli.load_config(str(config)).model.backbone.get('init_cfg')
    if initial is not None:
        ensure(initial.checkpoint)
    subprocess.run(
        [
            sys.executable,
            str(TOOLS / 'train.py'),
            str(config),
            '--resume',
            '--work-dir',
            osp.dirname(checkpoint),
        ],
        check=True,
    )


def run(dataset, row, seed, rows):
    """Trains and tests a row and writes its result."""
    cfg, trained = make_config(dataset, row, seed, rows)
    if trained:
        ensure(cfg.load_from)
        cli.enable_resume(cfg, 'auto')
        runner = cli.build_runner(cfg)
        runner.train()
    else:
        latest = Path(cfg.work_dir) / 'last_checkpoint'
        if not latest.is_file():
            raise cli.UserError(
                f'{dataset}/{row} needs the checkpoint of its source: {latest} does not exist'
            )
        cfg.load_from = latest.read_text().strip()
        cfg.work_dir = osp.join(cfg.work_dir, row)
        runner = cli.build_runner(cfg, whole=True)
    metrics, ratios, macs = evaluate(runner)
    spec = rows[dataset]
    log = train_scalars(cfg.work_dir) if trained else []
    result = dict(
        dataset=dataset,
        row=row,
        seed=seed,
        metric=spec['metric'],
        value=metrics[spec['metric']] * spec['scale'],
        metrics=metrics,
        keep_ratios=ratios,
        macs=macs,
        config=cfg.filename and osp.relpath(cfg.filename, ROOT),
        options=spec['rows'][row].get('options', {}),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        commit=own_version()['commit'],
        log=log,
    )
    write_json(result_path(dataset, row, seed), result)
    print(f'{dataset}/{row} seed {seed}: {spec["metric"]} {result["value"]:.2f}')


# ---------------------------------------------------------------------- time
def time_backbones(dataset, rows):
    """Times the backbones of all rows that have a result, in turns with the dense one.

    All prepared for inference, batch 1 at the size of the test, one thread.
    """
    torch.set_num_threads(1)
    init_default_scope('mmengine')
    backbones = {}
    for row in rows[dataset]['rows']:
        if result_path(dataset, row, 0).is_file():
            cfg, _ = make_config(dataset, row, 0, rows)
            backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None)).eval()
            checkpoint = (Path(cfg.work_dir) / 'last_checkpoint').read_text().strip()
            load_pretrained(backbone, checkpoint, 'backbone.', name='checkpoint')
            backbones[row] = backbone.prepare_for_inference()
    if 'dense' not in backbones:
        raise cli.UserError(f'{dataset}/dense has no result yet to compare with')
    names = ['dense', *(name for name in backbones if name != 'dense')]
    image = torch.rand(1, 3, *rows[dataset]['shape'])
    with torch.inference_mode():
        timings = time_in_turns(
            [lambda name=name: backbones[name](image) for name in names], rounds=60, warmup=5
        )
    write_json(
        RESULTS / dataset / 'timing.json',
        dict(
            shape=[1, 3, *rows[dataset]['shape']],
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            commit=own_version()['commit'],
            rows={name: timing._asdict() for name, timing in zip(names, timings)},
        ),
    )


# ---------------------------------------------------------------------- report
def read_results(dataset, rows):
    """Row -> its results, one for each seed that has run."""
    found = {}
    for row in rows[dataset]['rows']:
        paths = sorted((RESULTS / dataset).glob(f'{row}_seed*.json'))
        if paths:
            found[row] = [json.loads(path.read_text()) for path in paths]
    return found


def interval(values):
    """Half the width of the 95 % confidence interval of a mean, by Student's t."""
    t = stats.t.ppf(0.975, len(values) - 1)
    return t * statistics.stdev(values) / len(values) ** 0.5


def table(dataset, rows):
    """Markdown lines of a set's table."""
    spec, results = rows[dataset], read_results(dataset, rows)
    dense = results.get('dense')
    timing_path = RESULTS / dataset / 'timing.json'
    timing = json.loads(timing_path.read_text())['rows'] if timing_path.is_file() else {}
    lines = [
        f'| row | seeds | {spec["metric"]} (95 % interval) | against dense | GMACs (ratio) | '
        'time ratio (20 to 80 %) | realised keep ratios | command |',
        '|---' * 8 + '|',
    ]
    for row, described in spec['rows'].items():
        if row not in results:
            lines.append(f'| {described["title"]} | 0 | not run yet | | | | | |')
            continue
        values = [result['value'] for result in results[row]]
        mean = statistics.mean(values)
        value = f'{mean:.2f}' + (f' ± {interval(values):.2f}' if len(values) > 1 else '')
        macs = statistics.mean(result['macs'] for result in results[row])
        gain = ratio = ''
        if dense:
            gain = f'{mean - statistics.mean(result["value"] for result in dense):+.2f}'
            ratio = f' ({macs / dense[0]["macs"]:.3f})'
        seconds = timing.get(row)
        clock = (
            seconds
            and (
                f'{seconds["ratio"]:.3f} ({seconds["ratio_p20"]:.3f} to {seconds["ratio_p80"]:.3f})'
            )
            or ''
        )
        shares = [
            statistics.mean(share)
            for share in zip(*(result['keep_ratios'] for result in results[row]))
        ]
        lines.append(
            f'| {described["title"]} | {len(values)} | {value} | {gain} | '
            f'{macs / 1e9:.3f}{ratio} | {clock} | '
            f'{" / ".join(f"{share:.3f}" for share in shares)} | '
            f'`results.py run {dataset}/{row}` |'
        )
    return lines


def plot(dataset, rows):
    """Metric against multiply-adds, a point for each seed, and keep ratios while training."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    results = read_results(dataset, rows)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5.6))
    for number, (row, runs) in enumerate(results.items()):
        left.scatter(
            [run['macs'] / 1e9 for run in runs],
            [run['value'] for run in runs],
            s=18,
            color=pyplot.cm.tab20(number % 20),
            label=rows[dataset]['rows'][row]['title'],
        )
    left.set(xlabel='GMACs of the backbone', ylabel=rows[dataset]['metric'])
    left.legend(fontsize=6, ncols=2, loc='upper left', bbox_to_anchor=(-0.1, -0.14))
    for run in results.get('sparse_teacher', [])[:1]:
        for k in range(len(run['keep_ratios'])):
            right.plot(
                [line['step'] for line in run['log']],
                [line[f'keep_ratio_{k}'] for line in run['log']],
                label=f'keep_ratio_{k}',
            )
        right.set(xlabel='iteration', ylabel='share of slow positions, sampled', ylim=(0, 1))
        right.legend(fontsize=6)
    figure.suptitle(rows[dataset]['title'])
    figure.tight_layout()
    figure.savefig(RESULTS / f'{dataset}.png', dpi=100, metadata=dict(Software=None))
    pyplot.close(figure)


def report(rows):
    """Writes the tables between the marks of docs/RESULTS.md, and the plots."""
    page = ROOT / 'docs/RESULTS.md'
    text = page.read_text()
    for dataset, spec in rows.items():
        first, last = f'<!-- {dataset} -->', f'<!-- end of {dataset} -->'
        if text.count(first) != 1 or text.count(last) != 1:
            raise cli.UserError(f'{page}: needs the marks {first} and {last}, each once')
        before, rest = text.split(first)
        after = rest.split(last)[1]
        text = '\n'.join([before + first, *table(dataset, rows), last + after])
        if read_results(dataset, rows):
            plot(dataset, rows)
    write_whole(page, text)


def parse_args():
    parser = argparse.ArgumentParser(description='Rows of docs/RESULTS.md')
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('run', help='train and test a row, or all that have no result')
    one.add_argument('row', nargs='?', help='SET/ROW, such as camvid11/sparse; default: all')
    one.add_argument('--seed', type=int, help='default: all seeds of the row')
    commands.add_parser('time', help='time the backbones of all rows that have a result')
    commands.add_parser('report', help='write tables and plots')
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
    elif args.command == 'time':
        for dataset in rows:
            if result_path(dataset, 'dense', 0).is_file():
                time_backbones(dataset, rows)
    else:
        report(rows)


if __name__ == '__main__':
    cli.run_tool(main)
