"""What is compared: rows.yml, the config of each row, and where results lie."""

import json
from pathlib import Path

from mmengine.fileio import load

from dynsp_mm.files import write_whole
from dynsp_mm.tooling import options as cli

HERE = Path(__file__).resolve().parent
ROWS, CONFIGS, RESULTS = HERE / 'rows.yml', HERE / 'configs', HERE / 'results'
RUNS = Path('work_dirs/results')  # checkpoints and logs


def read_rows():
    """The table of rows: set -> its description."""
    return load(ROWS)


def result_path(dataset, row, seed):
    return RESULTS / dataset / f'{row}_seed{seed}.json'


def timing_path(dataset):
    return RESULTS / dataset / 'timing.json'


def plot_path(dataset):
    return RESULTS / f'{dataset}.png'


def read_results(dataset, rows):
    """Row -> its results, one for each seed that has run."""
    found = {}
    for row in rows[dataset]['rows']:
        paths = sorted((RESULTS / dataset).glob(f'{row}_seed*.json'))
        if paths:
            found[row] = [json.loads(path.read_text()) for path in paths]
    return found


def read_timing(dataset):
    """Row -> its time in seconds and ratios; empty before any was measured."""
    path = timing_path(dataset)
    return json.loads(path.read_text())['rows'] if path.is_file() else {}


def write_json(path, content):
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, default=float) + '\n')


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
