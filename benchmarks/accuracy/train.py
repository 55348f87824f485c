"""Trains a row, or tests the network of another one again, and writes its result."""

import json
import os.path as osp
import subprocess
import sys
from pathlib import Path

import torch

from dynsp_mm.analysis.machine import own_version
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling import runs

from . import rows as table
from .evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]


def train_scalars(work_dir):
    """Everything that a run logged while training, in order, before it was resumed too."""
    lines = []
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def ensure(checkpoint):
    """Trains the network of work_dirs/NAME/epoch_N.pth by its config, unless the file is there.

    What that network starts from is ensured before. It trains in a process of its own: visualizers
    of one name are shared within a process, so the row's log would go where the first one's goes.
    """
    if osp.isfile(checkpoint):
        return
    config = table.CONFIGS / f'{Path(checkpoint).parent.name}.py'
    initial = cli.load_config(str(config)).model.backbone.get('init_cfg')
    if initial is not None:
        ensure(initial.checkpoint)
    train = [sys.executable, str(ROOT / 'tools/train.py'), str(config)]
    subprocess.run([*train, '--resume', '--work-dir', osp.dirname(checkpoint)], check=True)


def make_runner(dataset, row, seed, rows):
    """Runner of a row with its network trained or loaded, and the losses of the training."""
    cfg, trained = table.make_config(dataset, row, seed, rows)
    if trained:
        ensure(cfg.load_from)
        cli.enable_resume(cfg, 'auto')
        runner = runs.build_runner(cfg)
        runner.train()
        return runner, train_scalars(cfg.work_dir)
    latest = Path(cfg.work_dir) / 'last_checkpoint'
    if not latest.is_file():
        raise cli.UserError(
            f'{dataset}/{row} needs the checkpoint of its source: {latest} does not exist'
        )
    cfg.load_from = latest.read_text().strip()
    cfg.work_dir = osp.join(cfg.work_dir, row)
    return runs.build_runner(cfg, whole=True), []


def run(dataset, row, seed, rows):
    """Trains and tests a row and writes its result."""
    runner, log = make_runner(dataset, row, seed, rows)
    metrics, ratios, macs = evaluate(runner)
    spec = rows[dataset]
    result = dict(
        dataset=dataset,
        row=row,
        seed=seed,
        metric=spec['metric'],
        value=metrics[spec['metric']] * spec['scale'],
        metrics=metrics,
        keep_ratios=ratios,
        macs=macs,
        config=runner.cfg.filename and osp.relpath(runner.cfg.filename, ROOT),
        options=spec['rows'][row].get('options', {}),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        commit=own_version()['commit'],
        log=log,
    )
    table.write_json(table.result_path(dataset, row, seed), result)
    print(f'{dataset}/{row} seed {seed}: {spec["metric"]} {result["value"]:.2f}')
