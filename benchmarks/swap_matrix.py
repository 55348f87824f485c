"""Writes SWAP_MATRIX.md: what a swap of the backbone does on every config of the libraries.

    python -m benchmarks.swap_matrix
    python -m benchmarks.swap_matrix --only mmseg:: --out seg_matrix.md

The configs are those of mmdet, mmseg and mmpretrain with a Swin or ConvNeXt. Each distinct backbone
is checked once, at its own image size, and each whole model at 256 x 320 (see
dynsp_mm/tooling/swap_check.py), in a process of its own. Results lie in the working directory, one
file each: run again, the command goes on where it stopped. On 2 cores all of it takes two hours and
up to 8 GiB.
"""

import argparse
import functools
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from mmengine.utils import get_installed_path

from dynsp_mm import families
from dynsp_mm.analysis import machine
from dynsp_mm.configuration import LIBRARIES
from dynsp_mm.configuration.read import without_pretrained
from dynsp_mm.files import write_whole
from dynsp_mm.tooling import harness, runs, swap_check
from dynsp_mm.tooling import options as cli

PAGE = Path(__file__).with_name('SWAP_MATRIX.md')
NAMES = {*families.dense_classes(), *families.unlike_classes()}
TIMEOUT = 1800  # seconds for one check
HEAD = """# Which configs of OpenMMLab can be made sparse

Written by `python -m benchmarks.swap_matrix`; do not edit.
Versions: {versions}. On a CPU in float32.

* Backbones: **{good} of {all}** configs, which have {distinct} distinct ones. Each was built at
  its own width and depth and fed a random image of its config's size. The dense state dict loads
  and only predictors and fast paths are missing; with `keep_ratios=None` the largest deviation from
  the dense outputs, relative to their largest value, is at most {tolerance}; with {ratio} it runs
  and keeps what it should.
* Whole models: **{trained} of {trainable}** that can be trained without downloads; {offline}
  cannot be built here, dense or sparse, {idle} configs train nothing, and the table says why. At
  256 x 320 and batch 2 with `SpatialSparsityHook` the loss is finite, every parameter of the sparse
  parts gets a gradient that is not zero, and every trainable parameter is in the optimizer that the
  config's constructor builds. Stochastic depth is off, mixed precision is full precision,
  `batch_augments` of detectors are left out.

## Backbones

The number in brackets says how many configs share the backbone.

| config | type | image | dense tensors | new tensors | deviation | keep ratios |
|---|---|---|---|---|---|---|"""
FORK = multiprocessing.get_context('fork')


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.swap_matrix', description='Check the swap on every config'
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/swap_matrix',
        type=Path,
        help='results, one file for each check',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='the table (default: benchmarks/SWAP_MATRIX.md, with '
        '--only selected.md in the working directory)',
    )
    parser.add_argument(
        '--only', default='', metavar='TEXT', help='only configs whose name contains this'
    )
    parser.add_argument('--retry', action='store_true', help='repeat checks that did not pass')
    return parser.parse_args()


# ---------------------------------------------------------------------- what there is
def find_configs(path):
    """(name, backbone type, key of the distinct backbone) of each config with a known backbone."""
    if path.is_file():
        return json.loads(path.read_text())
    found = []
    for library in LIBRARIES:
        root = config_root(library)
        files = sorted(
            file
            for file in root.rglob('*.py')
            if '_base_' not in file.parts and mentions_backbone(file)
        )
        print(f'[swap] reading {len(files)} configs of {library}', flush=True)
        for file in files:
            name = f'{library}::{file.relative_to(root).as_posix()}'
            try:
                cfg = cli.load_config(name)
            except Exception as error:  # some need packages that are not installed
                found.append([name, 'unreadable', f'{type(error).__name__}: {one_line(error)}'])
                continue
            backbone = (cfg.get('model') or {}).get('backbone') or {}
            kind = str(backbone.get('type', '')).split('.')[-1]
            if kind in NAMES:
                plain = without_pretrained(backbone)
                text = json.dumps([library, plain], sort_keys=True, default=str)
                found.append([name, kind, hashlib.sha256(text.encode()).hexdigest()[:12]])
    write(path, found)
    return found


def config_root(library):
    return Path(get_installed_path(library), '.mim/configs')


@functools.cache
def mentions_backbone(file):
    """Whether a file or one that it may inherit holds a known name; loading tells for certain."""
    text = file.read_text()
    if any(name in text for name in NAMES):
        return True
    bases = []
    text = re.sub(r"""['"]\s+['"]""", '', text)  # one string in two lines
    for library, path in re.findall(r"""['"](?:(\w+)::)?([^'"]+\.py)['"]""", text):
        if not library:
            bases.append((file.parent / path).resolve())
        elif library in LIBRARIES:
            bases.append(config_root(library) / path)
    return any(base.is_file() and mentions_backbone(base) for base in bases)


def one_line(error):
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + '...'


def write(path, value):
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value, indent=1))


# ---------------------------------------------------------------------- one check
def check(kind, name, file):
    """Write ``dict(status, versions, ...)`` of one backbone or model."""
    logging.disable(logging.WARNING)  # the initialisation of each layer
    cfg = cli.load_config(name)
    function = swap_check.check_backbone if kind == 'backbone' else swap_check.check_model
    try:
        if kind == 'model' and cfg.get('optim_wrapper') is None:
            result = dict(status='no training', reason='the config has no optimizer')
        else:
            result = dict(status='ok', **function(cfg))
    except swap_check.SwapError as error:
        result = dict(status='failed', reason=one_line(error))
    except Exception as error:
        result = dict(status='failed', reason=f'{type(error).__name__}: {one_line(error)}')
        if kind == 'model':
            try:  # is the swap to blame, or the library?
                harness.build_untouched(cfg)
            except Exception as dense_error:
                reason = f'{type(dense_error).__name__}: {one_line(dense_error)}'
                language = (cfg.model.get('language_model') or {}).get('type')
                if language:
                    reason = (
                        f'its language model, {language}, and the vocabulary are downloads; '
                        f'the first thing missing: {reason}'
                    )
                result = dict(status='not buildable', reason=reason)
    write(file, dict(result, versions=versions()))


def run_check(kind, name, file):
    """Run :func:`check` in a process of its own and return what it wrote.

    Forked from one that has imported the libraries and computed nothing.
    """
    process = FORK.Process(target=quietly, args=(kind, name, file), daemon=True)
    process.start()
    try:
        process.join(TIMEOUT)
        late = process.is_alive()
    finally:
        process.kill()
        process.join()
    if late:
        write(file, dict(status='failed', reason=f'not done after {TIMEOUT} s'))
    elif not file.is_file():
        code = process.exitcode
        reason = f'ended by {signal.Signals(-code).name}' if code < 0 else f'exit status {code}'
        write(file, dict(status='failed', reason=f'{reason}; see {log_of(file)}'))
    return json.loads(file.read_text())


def log_of(file):
    return file.with_suffix('.log')


def quietly(kind, name, file):
    """:func:`check` with its output in a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(log_of(file), 'w') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    check(kind, name, file)
    log_of(file).unlink()


# ---------------------------------------------------------------------- the table
def report(configs, backbones, models):
    """Markdown text."""
    swappable = [entry for entry in configs if entry[1] in families.dense_classes()]
    good = [entry for entry in swappable if backbones[entry[2]]['status'] == 'ok']
    counts = Counter(models[entry[0]]['status'] for entry in swappable)
    distinct = {entry[2]: entry for entry in reversed(swappable)}
    lines = [
        HEAD.format(
            versions=', '.join(f'{name} {number}' for name, number in versions().items()),
            good=len(good),
            all=len(swappable),
            distinct=len(distinct),
            tolerance=f'{swap_check.TOLERANCE:.0e}',
            ratio=swap_check.KEEP_RATIO,
            trained=counts['ok'],
            offline=counts['not buildable'],
            idle=counts['no training'],
            trainable=len(swappable) - counts['not buildable'] - counts['no training'],
        )
    ]
    for key, (name, kind, _) in distinct.items():
        result = backbones[key]
        shared = sum(entry[2] == key for entry in swappable)
        cells = [f'{name} ({shared})', families.dense_classes()[kind].cls]
        if result['status'] == 'ok':
            cells += [
                '{} x {}'.format(*result['size']),
                result['tensors'],
                result['new'],
                f'{result["error"]:.1e}',
                ' '.join(f'{ratio:.3f}' for ratio in result['keep_ratios']),
            ]
        else:
            cells += [result['status'] + ': ' + result['reason'], '', '', '', '']
        lines.append(row(cells))
    lines += [
        '',
        '## Whole models',
        '',
        '| config | loss | optimizer constructor |',
        '|---|---|---|',
    ]
    for name, _, _ in swappable:
        result = models[name]
        lines.append(
            row(
                [name, f'{result["loss"]:.3f}', result['optimizer']]
                if result['status'] == 'ok'
                else [name, f'{result["status"]}: {result["reason"]}', '']
            )
        )
    lines += ['', '## Not swapped', '', '| config | why |', '|---|---|']
    for name, kind, reason in configs:
        if kind in families.unlike_classes():
            lines.append(row([name, f'{kind}: {families.unlike_classes()[kind]}']))
        elif kind == 'unreadable':
            lines.append(row([name, f'its own file cannot be loaded: {reason}']))
    return '\n'.join(lines) + '\n'


def row(cells):
    return '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in cells) + ' |'


@functools.cache
def versions():
    """Name -> version of what a result depends on; one of other versions is computed anew."""
    return machine.versions()


def main():
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no check is left running
    out = args.out or (args.work_dir / 'selected.md' if args.only else PAGE)
    if not out.resolve().parent.is_dir() and out.resolve().parent != args.work_dir.resolve():
        raise cli.UserError(f'--out {out}: there is no folder {out.parent}')
    configs = [
        entry for entry in find_configs(args.work_dir / 'configs.json') if args.only in entry[0]
    ]
    swappable = [entry for entry in configs if entry[1] in families.dense_classes()]
    if not swappable:
        raise cli.UserError(
            f'--only {args.only}: no config with a Swin or ConvNeXt backbone has that in its name'
        )
    tasks = {('backbone', key): name for name, _, key in reversed(swappable)}
    tasks.update({('model', name): name for name, _, _ in swappable})
    results = {'backbone': {}, 'model': {}}
    # Nothing may be downloaded, nor waited for.
    os.environ.update(HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1')
    for library in LIBRARIES:
        importlib.import_module(f'{library}.models')
    for number, ((kind, key), name) in enumerate(tasks.items(), 1):
        stem = key if kind == 'backbone' else name.replace('::', '-').replace('/', '-')
        file = args.work_dir / kind / f'{stem}.json'
        if file.is_file():
            result = json.loads(file.read_text())
            again = args.retry and result['status'] != 'ok'
            if not again and result.get('versions', versions()) == versions():
                results[kind][key] = result
                continue
            file.unlink()
        start = time.time()
        result = results[kind][key] = run_check(kind, name, file)
        print(
            f'[swap] {number}/{len(tasks)} {kind} {name}: {result["status"]} '
            f'{result.get("reason", "")} ({time.time() - start:.0f} s)',
            flush=True,
        )
    out.write_text(report(configs, results['backbone'], results['model']))
    print(f'[swap] {out}')
    if any(result['status'] == 'failed' for kind in results.values() for result in kind.values()):
        raise cli.UserError(f'some checks failed: see {out}')


if __name__ == '__main__':
    runs.run_tool(main)
