import os
import sys

import pytest
from in_memory import fails, make

from dynsp_mm.configuration import LIBRARIES, leaf_datasets
from dynsp_mm.tooling.predictions import enable_dump, enable_tta, enable_visualization

# visualization


def make_visual(scope):
    return make(
        scope,
        default_hooks=dict(visualization=dict(type='Hook')),
        visualizer=dict(type='Visualizer'),
    )


@pytest.fixture
def display(monkeypatch):
    monkeypatch.setenv('DISPLAY', ':0')


@pytest.mark.parametrize(
    'scope, expected',
    [
        ('mmdet', dict(draw=True)),
        ('mmseg', dict(draw=True)),
        ('mmpretrain', dict(enable=True, interval=1)),
    ],
)
def test_show(display, scope, expected):
    cfg = make_visual(scope)
    enable_visualization(cfg)
    assert cfg.default_hooks.visualization == dict(type='Hook')
    enable_visualization(cfg, show=True, wait_time=0.5)
    assert cfg.default_hooks.visualization == dict(
        type='Hook', show=True, wait_time=0.5, **expected
    )
    assert cfg.visualizer == dict(type='Visualizer')


def test_show_dir():
    expected = os.path.abspath('painted')
    cfgs = {scope: make_visual(scope) for scope in LIBRARIES}
    for cfg in cfgs.values():
        enable_visualization(cfg, show_dir='painted')
    hooks = {scope: cfg.default_hooks.visualization for scope, cfg in cfgs.items()}
    assert hooks['mmdet'] == dict(type='Hook', draw=True, test_out_dir=expected)
    assert hooks['mmseg'] == dict(type='Hook', draw=True)
    assert hooks['mmpretrain'] == dict(type='Hook', enable=True, interval=1, out_dir=expected)
    assert cfgs['mmseg'].visualizer.save_dir == expected
    assert 'save_dir' not in cfgs['mmdet'].visualizer


def test_show_and_show_dir(display):
    for scope in ('mmdet', 'mmpretrain'):
        cfg = make_visual(scope)
        enable_visualization(cfg, show=True, show_dir='painted')
        assert cfg.default_hooks.visualization.show
    assert fails(enable_visualization, make_visual('mmseg'), True, 'painted') == (
        '--show and --show-dir exclude each other with mmseg: its hook stops saving when it shows'
    )


def test_visualization_errors(monkeypatch):
    cfg = make('mmdet', default_hooks=dict(timer=dict(type='IterTimerHook')))
    assert fails(enable_visualization, cfg, show_dir='painted') == (
        'net.py: --show-dir needs a visualization hook: '
        "default_hooks = dict(visualization=dict(type='DetVisualizationHook'))"
    )
    assert 'SegVisualizationHook' in fails(enable_visualization, make('mmseg'), show=True)
    cfg = make('mmseg', default_hooks=dict(visualization=dict(type='Hook')))
    assert fails(enable_visualization, cfg, show_dir='a') == 'net.py: visualizer must be set'
    assert fails(enable_visualization, make_visual('mmother'), show=True) == (
        "net.py: --show works with mmdet, mmseg, mmpretrain; got default_scope='mmother'"
    )
    for name in ('DISPLAY', 'WAYLAND_DISPLAY', 'MPLBACKEND'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert fails(enable_visualization, make_visual('mmdet'), show=True) == (
        '--show opens windows, but DISPLAY is not set; use --show-dir DIR'
    )


# test-time augmentation, predictions


def test_tta_reaches_the_innermost_datasets():
    old, new = [dict(type='Old')], [dict(type='New')]
    dataset = dict(
        type='ConcatDataset',
        datasets=[
            dict(type='A', pipeline=old),
            dict(type='RepeatDataset', dataset=dict(type='B', pipeline=old)),
        ],
    )
    cfg = make(
        model=dict(type='Net', depth=1),
        tta_model=dict(type='TTA', mode='mean'),
        tta_pipeline=new,
        test_dataloader=dict(dataset=dataset),
    )
    enable_tta(cfg)
    assert cfg.model == dict(type='TTA', mode='mean', module=dict(type='Net', depth=1))
    leaves = dict(leaf_datasets(cfg.test_dataloader.dataset))
    assert list(leaves) == ['dataset.datasets.0', 'dataset.datasets.1.dataset']
    assert all(leaf.pipeline == new for leaf in leaves.values())
    assert 'pipeline' not in cfg.test_dataloader.dataset


def test_tta_errors():
    start = 'net.py: --tta needs tta_model and tta_pipeline in the config; '
    assert fails(enable_tta, make()) == start + 'tta_model and tta_pipeline not set'
    assert fails(enable_tta, make(tta_model=dict(type='A'))) == start + 'tta_pipeline not set'


@pytest.mark.parametrize(
    'scope, dump',
    [('mmdet', 'mmdet.DumpDetResults'), ('mmseg', 'DumpResults'), ('mmpretrain', 'DumpResults')],
)
def test_dump(scope, dump):
    dump = dict(type=dump, out_file_path='a.pkl')
    one, two = dict(type='One'), dict(type='Two')
    for evaluator, expected in (
        (one, [one, dump]),
        ([one, two], [one, two, dump]),
        (dict(type='E', metrics=one), dict(type='E', metrics=[one, dump])),
    ):
        cfg = make(scope, val_evaluator=one, test_evaluator=evaluator)
        enable_dump(cfg, 'a.pkl')
        assert cfg.test_evaluator == expected
        assert cfg.val_evaluator == one


def test_dump_errors():
    text = '--out takes a file that ends in .pkl or .pickle; got a.json'
    assert fails(enable_dump, make(), 'a.json') == text
    assert fails(enable_dump, make('mmseg'), 'a.json') == (
        text + '; label maps as PNG: --cfg-options test_evaluator.output_dir=DIR'
    )
    assert fails(enable_dump, make(), 'a.pkl') == 'net.py: test_evaluator must be set'
