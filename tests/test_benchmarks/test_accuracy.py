"""benchmarks/accuracy/: its rows, statistics and pages, and a tiny set."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from benchmarks import report
from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import evaluate
from benchmarks.accuracy import rows as table
from benchmarks.accuracy.tables import interval
from dynsp_mm.tooling import options as cli

ROOT = Path(__file__).parents[2]


def test_rows_name_configs_that_differ_as_they_say():
    rows = table.read_rows()
    assert set(rows) == {'camvid11', 'imagenette112', 'imagenette112_convnext', 'dsb2018'}
    for dataset, spec in rows.items():
        starts = set()
        for row, described in spec['rows'].items():
            assert set(described) <= {'config', 'options', 'of', 'budget_of', 'seeds', 'title'}
            if 'of' in described:
                assert spec['rows'][described['of']]['config']
                continue
            cfg, trained = table.make_config(dataset, row, 1, rows)
            assert trained and cfg.randomness.seed == 1 and cfg.work_dir.endswith(f'{row}/seed1')
            if row != 'stvit':
                starts.add(cfg.load_from)
            hooks = cfg.get('custom_hooks') or []
            ratios = cfg.model.backbone.get('keep_ratios')
            assert [hook.type for hook in hooks] == ['SpatialSparsityHook'] * bool(ratios)
            assert all(hook.get('teacher') in (None, cfg.load_from) for hook in hooks)
            assert ('teacher' in described['title']) == bool(hooks and hooks[0].get('teacher')) or (
                described['title'].endswith('no teacher')
            )
            assert (cfg.model.backbone.get('selection') == 'random') == (row in ('random', 'fast'))
            if ratios and dataset != 'dsb2018':
                assert cfg.model.backbone.mixing == ('merged' if row == 'merged' else 'two_stream')
        assert len(starts) == 1  # the same dense network for all
    three = {'dense', 'sparse', 'sparse_teacher', 'random'}
    for dataset in ('camvid11', 'imagenette112'):
        assert {
            row for row, described in rows[dataset]['rows'].items() if described['seeds'] == 3
        } >= three


@pytest.mark.parametrize('values,half', [((1.0, 2.0, 3.0), 4.303 / 3**0.5), ((5.0, 5.0), 0.0)])
def test_interval(values, half):
    assert interval(values) == pytest.approx(half, rel=1e-3)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """docs/RESULTS.md of a checkout without results."""
    monkeypatch.setattr(report, 'DOCS', tmp_path / 'docs')
    monkeypatch.setattr(table, 'RESULTS', tmp_path / 'results')
    (tmp_path / 'docs').mkdir()
    return tmp_path / 'docs/RESULTS.md'


def test_report(page, tmp_path, monkeypatch):
    rows = dict(
        tiny=dict(
            title='Tiny',
            metric='mIoU',
            rows=dict(
                dense=dict(title='dense', seeds=2),
                sparse_teacher=dict(title='sparse', seeds=1),
                late=dict(title='late', seeds=1),
            ),
        )
    )
    (tmp_path / 'results/tiny').mkdir(parents=True)
    monkeypatch.setattr(table, 'read_rows', lambda: rows)
    for row, seed, value, macs, ratios in (
        ('dense', 0, 50.0, 2e9, []),
        ('dense', 1, 52.0, 2e9, []),
        ('sparse_teacher', 0, 50.5, 1e9, [0.7, 0.5]),
    ):
        log = [dict(step=1, loss=1.0, keep_ratio_0=0.9, keep_ratio_1=0.8)] if ratios else []
        (tmp_path / f'results/tiny/{row}_seed{seed}.json').write_text(
            json.dumps(dict(value=value, macs=macs, keep_ratios=ratios, log=log))
        )
    page.write_text('before\n<!-- tiny -->\nold\n<!-- end of tiny -->\nafter\n')
    report.report_results()
    text = page.read_text()
    assert text.startswith('before\n<!-- tiny -->\n| row | seeds | mIoU')
    assert text.endswith('<!-- end of tiny -->\nafter\n') and 'old' not in text
    assert f'| dense | 2 | 51.00 ± {12.706:.2f} | +0.00 | 2.000 (1.000) |' in text
    assert '| sparse | 1 | 50.50 | -0.50 | 1.000 (0.500) |  | 0.700 / 0.500 |' in text
    assert '| late | 0 | not run yet |' in text
    assert (tmp_path / 'results/tiny.png').stat().st_size > 1000
    report.report_results()
    assert page.read_text() == text
    page.write_text('no marks')
    with pytest.raises(cli.UserError, match='needs the marks <!-- tiny --> and'):
        report.report_results()
    assert page.read_text() == 'no marks'


@pytest.mark.parametrize(
    'text,said',
    [
        ('<!-- tiny -->\n', 'each once'),
        ('<!-- tiny -->\n<!-- tiny -->\n<!-- end of tiny -->\n', 'each once'),
        ('<!-- end of tiny -->\n<!-- tiny -->\n', '<!-- end of tiny --> must come after <!-- tiny'),
        (
            '<!-- tiny -->\n<!-- end of tiny -->\n<!-- other -->\n<!-- end of other -->\n',
            'RESULTS.md: <!-- other --> names no table; must be one of tiny',
        ),
    ],
)
def test_a_page_with_wrong_marks_stays(page, text, said):
    page.write_text(text)
    with pytest.raises(cli.UserError, match=said):
        report.fill(page, ['tiny'], str.upper, required=['tiny'])
    assert page.read_text() == text


def test_the_page_shows_the_results(page, monkeypatch):
    """The report would leave it as it is, and its plots are there."""
    own = ROOT / 'docs/RESULTS.md'
    monkeypatch.setattr(table, 'RESULTS', ROOT / 'benchmarks/accuracy/results')
    monkeypatch.setattr(report.plots, 'plot', lambda dataset, sets: None)
    page.write_text(own.read_text())
    report.report_results()
    assert page.read_text() == own.read_text()
    plots = re.findall(r'!\[.*\]\((.*)\)', own.read_text())
    assert [(own.parent / plot).resolve() for plot in plots] == [
        table.plot_path(dataset) for dataset in table.read_rows()
    ]
    assert all((own.parent / plot).is_file() for plot in plots)


CONFIG = """
_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='DynamicSwin', embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=128))
data_preprocessor = dict(num_classes=2, mean=[127.5] * 3, std=[60.0] * 3, to_rgb=True)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
            dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='data', pipeline=pipeline))
test_dataloader = dict(train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Accuracy')
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""
SPARSE = """
_base_ = './start.py'
model = dict(backbone=dict(keep_ratios=0.7))
load_from = 'work_dirs/start/epoch_1.pth'
custom_hooks = [dict(type='SpatialSparsityHook', teacher=load_from)]
"""
ROWS = """
tiny:
  title: Tiny
  metric: accuracy/top1
  scale: 1
  shape: [64, 64]
  rows:
    dense: {config: dense, seeds: 1, title: dense}
    sparse: {config: sparse, seeds: 1, title: sparse}
    threshold:
      {of: sparse, options: {model.backbone.selection: {type: threshold}}, seeds: 1, title: t}
    topk: {of: sparse, budget_of: threshold, seeds: 1, title: k}
"""


@pytest.mark.slow
def test_a_tiny_set(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = tmp_path / 'configs'
    for folder in (configs, tmp_path / 'data/a', tmp_path / 'data/b'):
        folder.mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(
            str(tmp_path / f'data/{"ab"[i % 2]}/{i}.png'),
            np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8),
        )
    (configs / 'start.py').write_text(CONFIG)
    (configs / 'dense.py').write_text(
        "_base_ = './start.py'\nload_from = 'work_dirs/start/epoch_1.pth'"
    )
    (configs / 'sparse.py').write_text(SPARSE)
    (configs / 'rows.yml').write_text(ROWS)
    page.write_text('<!-- tiny -->\n<!-- end of tiny -->\n')
    monkeypatch.setattr(table, 'CONFIGS', configs)
    monkeypatch.setattr(table, 'ROWS', configs / 'rows.yml')
    monkeypatch.setattr(evaluate, 'COUNTED', 3)  # one batch of two

    def call(*args, module=command):
        monkeypatch.setattr('sys.argv', ['command', *args])
        module.main()

    def result(row):
        return json.loads((tmp_path / f'results/tiny/{row}_seed0.json').read_text())

    with pytest.raises(cli.UserError, match="row 'tiny/none': must be one of tiny/dense, tiny/sp"):
        call('run', 'tiny/none')
    with pytest.raises(cli.UserError, match='needs the checkpoint of its source'):
        call('run', 'tiny/threshold')
    with pytest.raises(cli.UserError, match='tiny/topk needs the result of threshold first'):
        call('run', 'tiny/topk', '--seed', '0')
    call('run')
    assert (tmp_path / 'work_dirs/start/epoch_1.pth').is_file()
    dense, sparse = result('dense'), result('sparse')
    assert dense['keep_ratios'] == [] and dense['macs'] > sparse['macs'] > 0
    assert sparse['keep_ratios'] == [11 / 16, 8 / 16, 4 / 16]  # int(16 * ratio) of 16
    assert [line['step'] for line in sparse['log']] == [1, 2]
    assert 'loss_distill_logits' in sparse['log'][0]
    assert sparse['value'] == sparse['metrics']['accuracy/top1'] and 0 <= sparse['value'] <= 100
    threshold, topk = result('threshold'), result('topk')
    assert threshold['log'] == [] and threshold['keep_ratios'] != sparse['keep_ratios']
    for ours, theirs in zip(topk['keep_ratios'], threshold['keep_ratios']):
        assert 0 <= theirs - ours < 1 / 16  # rounded down to whole positions

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / 'results').rglob('*')}
    call('run')  # nothing is left to do
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    call('time')
    call('results', module=report)
    text = page.read_text()
    timing = json.loads((tmp_path / 'results/tiny/timing.json').read_text())['rows']
    assert set(timing) == {'dense', 'sparse', 'threshold', 'topk'}
    assert timing['dense']['ratio'] == 1 and '| 1.000 (1.000 to 1.000) |' in text
    assert Config.fromfile(configs / 'sparse.py').load_from == 'work_dirs/start/epoch_1.pth'
