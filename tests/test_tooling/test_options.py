import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, RUNNERS

from dynsp_mm import create_backbone
from dynsp_mm.configuration import read as config_tree
from dynsp_mm.tooling import options as cli

ROOT = Path(__file__).resolve().parents[2]
SCOPE = next((lib for lib in cli.LIBRARIES if importlib.util.find_spec(lib)), 'mmengine')


@pytest.fixture
def write(tmp_path):
    """Write a config file and return its path."""

    def write(text, name='net.py'):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def accelerator(monkeypatch):
    def set_visible(visible):
        monkeypatch.setattr(cli, 'has_accelerator', lambda: visible)

    return set_visible


def make(scope='mmdet', **entries):
    return Config(dict(default_scope=scope, **entries), cfg_text='# no file', filename='net.py')


def fails(function, *args, **kwargs):
    with pytest.raises(cli.UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# loading


def test_load_config_merges_options(write):
    path = write(f'default_scope = {SCOPE!r}\na = dict(b=1, c=[1, dict(d=2)])')
    cfg = cli.load_config(path, {'a.b': 3, 'a.c.1.d': 5})
    assert cfg.a == dict(b=3, c=[1, dict(d=5)])
    assert fails(cli.load_config, path, {'a.c.0': 2}) == (
        '--cfg-options a.c.0: an index replaces only entries that are dicts; give the whole list'
    )
    assert cli.load_config(write('x = 1'), {'default_scope': SCOPE}).x == 1


@pytest.mark.parametrize('name', ['mmdet', 'mmseg', 'mmpretrain'])
def test_library_configs_load_as_bases_and_by_name(write, name):
    pytest.importorskip(name)
    base = dict(
        mmdet='mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        mmseg='swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        mmpretrain='swin_transformer/swin-tiny_16xb64_in1k.py',
    )[name]
    for path in (f'{name}::{base}', write(f'_base_ = ["{name}::{base}"]')):
        cfg = cli.load_config(path)
        assert cfg.default_scope == name
        cli.set_work_dir(cfg)
        assert cfg.work_dir == os.path.join('work_dirs', Path(cfg.filename).stem)


def test_load_config_errors(write, tmp_path):
    missing = str(tmp_path / 'no.py')
    assert fails(cli.load_config, missing) == f'config file {missing} does not exist'
    assert 'Only py/yml/yaml/json' in fails(cli.load_config, write('', 'net.txt'))
    assert ', or a file in its _base_: ' in fails(cli.load_config, write('model = dict('))
    text = fails(cli.load_config, write('_base_ = "other.py"'))
    assert text.startswith(str(tmp_path / 'net.py')) and 'other.py' in text
    assert 'mmrotate is not installed' in fails(
        cli.load_config, write('_base_ = "mmrotate::a/b.py"')
    )
    assert fails(cli.load_config, 'mmdet::nope.py').startswith(
        'mmdet::nope.py: a config of mmdet is named with its folder, such as mmdet::retinanet/'
    )
    assert fails(cli.load_config, 'mmaction::a/b.py') == (
        "mmaction::a/b.py: configs come from mmdet, mmseg, mmpretrain and dynsp_mm; got 'mmaction'"
    )
    path = write(f'default_scope = {SCOPE!r}\na = 1')
    text = fails(cli.load_config, path, {'a.b': 1})
    assert text.startswith('--cfg-options a.b: ') and "a={'b': 1}" in text


def test_from_dense(write, tmp_path):
    """Start and teacher in one, whatever the config says of them."""
    dense = tmp_path / 'dense.pth'
    dense.touch()
    for teacher, expected in (
        ('None', str(dense)),
        (repr('other.pth'), str(dense)),
        ("dict(checkpoint='a', config='b')", str(dense)),
    ):
        cfg = cli.load_config(
            write(
                f'default_scope = {SCOPE!r}\nload_from = "x.pth"\ncustom_hooks = ['
                f'dict(type="EMAHook"), dict(type="SpatialSparsityHook", teacher={teacher})]'
            )
        )
        cli.enable_from_dense(cfg, None)
        assert cfg.load_from == 'x.pth'
        cli.enable_from_dense(cfg, str(dense))
        assert cfg.load_from == str(dense) and cfg.custom_hooks[1].teacher == expected
    cli.check_teachers(cfg)
    cfg.custom_hooks[1].teacher = dict(checkpoint='gone.pth')
    assert fails(cli.check_teachers, cfg) == 'teacher gone.pth does not exist'
    cfg.custom_hooks[1].teacher = 'https://somewhere/x.pth'
    cli.check_teachers(cfg)
    assert fails(cli.enable_from_dense, cfg, 'gone.pth') == '--from-dense gone.pth does not exist'
    path = write(f'default_scope = {SCOPE!r}\ncustom_hooks = [dict(type="EMAHook")]')
    assert fails(cli.enable_from_dense, cli.load_config(path), str(dense)) == (
        f'{path}: --from-dense needs a sparse model with its training hook; add --sparse RATIO, or '
        "dict(type='SpatialSparsityHook') to custom_hooks"
    )


def test_the_training_hook_is_known_by_its_old_name(tmp_path):
    dense = tmp_path / 'dense.pth'
    dense.touch()
    cfg = Config(dict(custom_hooks=[dict(type='SparseTrainingHook', teacher='gone.pth')]))
    assert fails(cli.check_teachers, cfg) == 'teacher gone.pth does not exist'
    cli.enable_from_dense(cfg, str(dense))
    assert cfg.custom_hooks == [dict(type='SparseTrainingHook', teacher=str(dense))]


def test_named_config_of_missing_package(monkeypatch):
    monkeypatch.setattr(config_tree, 'enable_mmseg_base_configs', lambda: None)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert fails(cli.load_config, 'mmdet::a/b.py') == (
        'mmdet::a/b.py: package mmdet is not installed'
    )


def test_failed_import_inside_a_config_keeps_its_traceback(write):
    with pytest.raises(ModuleNotFoundError, match='no_such_module'):
        cli.load_config(write('x = __import__("no_such_module")'))


def test_default_scope_is_required(write):
    for text in ('model = dict()', 'default_scope = None'):
        path = write(text)
        assert fails(cli.load_config, path) == (
            f'{path}: default_scope is not set; the config must name the library that its types '
            "come from: default_scope = 'mmdet', 'mmseg' or 'mmpretrain'"
        )
    path = write('default_scope = "mmnothing"')
    assert fails(cli.load_config, path) == (
        f"{path}: default_scope='mmnothing', but package mmnothing is not installed"
    )


def test_require():
    cfg = make(model=dict(type='A'), train_cfg=None)
    cli.require(cfg, 'model')
    assert fails(cli.require, cfg, 'model', 'train_cfg', 'x') == (
        'net.py: train_cfg, x must be set'
    )


# options


def test_work_dir_order():
    cfg = make()
    cli.set_work_dir(cfg)
    assert cfg.work_dir == os.path.join('work_dirs', 'net')
    cfg = make(work_dir='mine')
    cli.set_work_dir(cfg)
    assert cfg.work_dir == 'mine'
    cli.set_work_dir(cfg, 'given')
    assert cfg.work_dir == 'given'


def test_launcher(accelerator, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('LOCAL_RANK')
    accelerator(False)
    cfg = make()
    assert fails(cli.set_launcher, cfg, 'slurm') == (
        '--launcher slurm needs an accelerator for each process: '
        'no CUDA/NPU/MLU/MUSA device is visible'
    )
    cli.set_launcher(cfg, 'none')
    assert cfg.launcher == 'none' and os.environ['LOCAL_RANK'] == '0'
    accelerator(True)
    monkeypatch.delenv('LOCAL_RANK')
    cli.set_launcher(cfg, 'pytorch', 3)
    assert cfg.launcher == 'pytorch' and os.environ['LOCAL_RANK'] == '3'
    cli.set_launcher(cfg, 'pytorch', 5)
    assert os.environ['LOCAL_RANK'] == '3'


def test_dataloader_defaults_of_mmpretrain(accelerator):
    loaders = dict(
        train_dataloader=dict(num_workers=2, pin_memory=False), val_dataloader=dict(num_workers=0)
    )
    cfg = make('mmdet', **loaders)
    cli.set_dataloader_defaults(cfg)
    assert cfg.val_dataloader == dict(num_workers=0)
    accelerator(True)
    cfg = make('mmpretrain', **loaders)
    cli.set_dataloader_defaults(cfg)
    collate = dict(type='default_collate')
    assert cfg.train_dataloader == dict(
        num_workers=2, pin_memory=False, persistent_workers=True, collate_fn=collate
    )
    assert cfg.val_dataloader == dict(
        num_workers=0, pin_memory=True, persistent_workers=False, collate_fn=collate
    )


def test_amp(accelerator):
    accelerator(True)
    for wrapper in (
        dict(optimizer={}),
        dict(type='OptimWrapper'),
        dict(type='AmpOptimWrapper'),
        dict(type='mmengine.OptimWrapper'),
    ):
        cfg = make(optim_wrapper=wrapper)
        cli.enable_amp(cfg)
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg = make(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale=512.0))
    cli.enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 512.0
    cfg = make(optim_wrapper=dict(type='OptimWrapper'))
    cli.enable_amp(cfg, requested=False)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
    # An AmpOptimWrapper of the config, overridden on the command line.
    cfg = make(optim_wrapper=dict(type='OptimWrapper', loss_scale='dynamic'))
    cli.enable_amp(cfg, requested=False)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
    assert fails(cli.enable_amp, make(optim_wrapper=dict(type='ApexOptimWrapper'))) == (
        'net.py: --amp replaces an optim_wrapper of type OptimWrapper; got ApexOptimWrapper'
    )
    assert fails(cli.enable_amp, make()) == 'net.py: optim_wrapper must be set'


def test_amp_without_accelerator(accelerator):
    accelerator(False)
    cfg = make(optim_wrapper=dict(type='OptimWrapper'))
    cli.enable_amp(cfg, requested=False)
    assert fails(cli.enable_amp, cfg) == (
        '--amp needs an accelerator: no CUDA/NPU/MLU/MUSA device is visible'
    )
    cfg = make(optim_wrapper=dict(type='AmpOptimWrapper'))
    assert fails(cli.enable_amp, cfg, requested=False) == (
        "optim_wrapper.type='AmpOptimWrapper' needs an accelerator: "
        'no CUDA/NPU/MLU/MUSA device is visible; without one, '
        '--cfg-options optim_wrapper.type=OptimWrapper'
    )


def test_auto_scale_lr():
    cfg = make(auto_scale_lr=dict(base_batch_size=16))
    cli.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=True)
    for cfg in (make(), make(auto_scale_lr=dict(enable=False))):
        assert fails(cli.enable_auto_scale_lr, cfg) == (
            'net.py: --auto-scale-lr needs the batch size that the learning rate was chosen for: '
            'auto_scale_lr = dict(base_batch_size=...)'
        )


def test_resume(tmp_path):
    cfg = make(load_from='init.pth', resume=False, work_dir=str(tmp_path))
    cli.enable_resume(cfg, None)
    assert not cfg.resume and cfg.load_from == 'init.pth'
    cli.enable_resume(cfg, 'auto')  # nothing to resume yet: load_from stands
    assert not cfg.resume and cfg.load_from == 'init.pth'
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    cli.enable_resume(cfg, 'auto')
    assert cfg.resume and cfg.load_from is None
    path = tmp_path / 'epoch_1.pth'
    path.touch()
    cli.enable_resume(cfg, str(path))
    assert cfg.resume and cfg.load_from == str(path)
    assert fails(cli.enable_resume, cfg, 'no.pth') == '--resume no.pth does not exist'


def test_check_checkpoint():
    for url in ('https://host/a.pth', 'torchvision://resnet50'):
        assert cli.check_checkpoint(url) == url
    assert fails(cli.check_checkpoint, 'no.pth') == 'checkpoint no.pth does not exist'


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
    cli.enable_visualization(cfg)
    assert cfg.default_hooks.visualization == dict(type='Hook')
    cli.enable_visualization(cfg, show=True, wait_time=0.5)
    assert cfg.default_hooks.visualization == dict(
        type='Hook', show=True, wait_time=0.5, **expected
    )
    assert cfg.visualizer == dict(type='Visualizer')


def test_show_dir():
    expected = os.path.abspath('painted')
    cfgs = {scope: make_visual(scope) for scope in cli.LIBRARIES}
    for cfg in cfgs.values():
        cli.enable_visualization(cfg, show_dir='painted')
    hooks = {scope: cfg.default_hooks.visualization for scope, cfg in cfgs.items()}
    assert hooks['mmdet'] == dict(type='Hook', draw=True, test_out_dir=expected)
    assert hooks['mmseg'] == dict(type='Hook', draw=True)
    assert hooks['mmpretrain'] == dict(type='Hook', enable=True, interval=1, out_dir=expected)
    assert cfgs['mmseg'].visualizer.save_dir == expected
    assert 'save_dir' not in cfgs['mmdet'].visualizer


def test_show_and_show_dir(display):
    for scope in ('mmdet', 'mmpretrain'):
        cfg = make_visual(scope)
        cli.enable_visualization(cfg, show=True, show_dir='painted')
        assert cfg.default_hooks.visualization.show
    assert fails(cli.enable_visualization, make_visual('mmseg'), True, 'painted') == (
        '--show and --show-dir exclude each other with mmseg: its hook stops saving when it shows'
    )


def test_visualization_errors(monkeypatch):
    cfg = make('mmdet', default_hooks=dict(timer=dict(type='IterTimerHook')))
    assert fails(cli.enable_visualization, cfg, show_dir='painted') == (
        'net.py: --show-dir needs a visualization hook: '
        "default_hooks = dict(visualization=dict(type='DetVisualizationHook'))"
    )
    assert 'SegVisualizationHook' in fails(cli.enable_visualization, make('mmseg'), show=True)
    cfg = make('mmseg', default_hooks=dict(visualization=dict(type='Hook')))
    assert fails(cli.enable_visualization, cfg, show_dir='a') == 'net.py: visualizer must be set'
    assert fails(cli.enable_visualization, make_visual('mmother'), show=True) == (
        "net.py: --show works with mmdet, mmseg, mmpretrain; got default_scope='mmother'"
    )
    for name in ('DISPLAY', 'WAYLAND_DISPLAY', 'MPLBACKEND'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert fails(cli.enable_visualization, make_visual('mmdet'), show=True) == (
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
    cli.enable_tta(cfg)
    assert cfg.model == dict(type='TTA', mode='mean', module=dict(type='Net', depth=1))
    leaves = dict(cli.leaf_datasets(cfg.test_dataloader.dataset))
    assert list(leaves) == ['dataset.datasets.0', 'dataset.datasets.1.dataset']
    assert all(leaf.pipeline == new for leaf in leaves.values())
    assert 'pipeline' not in cfg.test_dataloader.dataset


def test_tta_errors():
    start = 'net.py: --tta needs tta_model and tta_pipeline in the config; '
    assert fails(cli.enable_tta, make()) == start + 'tta_model and tta_pipeline not set'
    assert fails(cli.enable_tta, make(tta_model=dict(type='A'))) == start + 'tta_pipeline not set'


@pytest.mark.parametrize(
    'scope, dump',
    [('mmdet', 'DumpDetResults'), ('mmseg', 'DumpResults'), ('mmpretrain', 'DumpResults')],
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
        cli.enable_dump(cfg, 'a.pkl')
        assert cfg.test_evaluator == expected
        assert cfg.val_evaluator == one


def test_dump_errors():
    text = '--out takes a file that ends in .pkl or .pickle; got a.json'
    assert fails(cli.enable_dump, make(), 'a.json') == text
    assert fails(cli.enable_dump, make('mmseg'), 'a.json') == (
        text + '; label maps as PNG: --cfg-options test_evaluator.output_dir=DIR'
    )
    assert fails(cli.enable_dump, make(), 'a.pkl') == 'net.py: test_evaluator must be set'


# runner


def test_build_runner(monkeypatch):
    monkeypatch.setattr(cli.Runner, 'from_cfg', lambda cfg: ('default', cfg))
    cfg = make(SCOPE)
    assert cli.build_runner(cfg) == ('default', cfg)
    cfg.runner_type = 'NoSuchRunner'
    assert fails(cli.build_runner, cfg) == ("net.py: runner_type='NoSuchRunner' is not registered")

    class CliTestRunner:
        @classmethod
        def from_cfg(cls, cfg):
            return cls, cfg

    monkeypatch.setitem(RUNNERS.module_dict, 'CliTestRunner', CliTestRunner)
    cfg.runner_type = 'CliTestRunner'
    assert cli.build_runner(cfg) == (CliTestRunner, cfg)


def test_sparse_weights_for_a_dense_model(tmp_path, caplog):
    """Their predictors would be left out without a word."""
    path = str(tmp_path / 'sparse.pth')
    torch.save(
        dict(
            state_dict={
                f'backbone.{key}': value
                for key, value in create_backbone('dynamic_convnext_atto', keep_ratios=0.7)
                .state_dict()
                .items()
            }
        ),
        path,
    )

    def check(**kwargs):
        caplog.clear()
        cli.check_weights(
            torch.nn.ModuleDict(dict(backbone=create_backbone('dynamic_convnext_atto', **kwargs))),
            path,
            'checkpoint',
        )
        return 'is of a sparse model and this one is dense' in caplog.text

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        assert check() and not check(keep_ratios=0.5)
    finally:
        logger.removeHandler(caplog.handler)


def test_a_part_that_lacks_something(tmp_path):
    """The config, the part and the reason in one line; other errors stay as they are."""
    errors = [
        (ImportError('no module\n  named x'), 'no module named x'),
        (RuntimeError('y is not installed'), 'y is not installed'),
        (NotImplementedError('please install z'), 'please install z'),
        (OSError('cannot reach the hub'), 'cannot reach the hub'),
        (KeyError('a'), None),
        (RuntimeError('shapes'), None),
    ]

    class Head(torch.nn.Module):
        def __init__(self, error):
            raise errors[error][0]

    MODELS.register_module('CliTestHead', force=True, module=Head)
    MODELS.register_module('CliTestModel', force=True, module=lambda head: MODELS.build(head))
    try:

        def build(**head):
            return cli.build_runner(
                make(work_dir=str(tmp_path), model=dict(type='mmengine.CliTestModel', head=head))
            )

        kind = 'mmengine.CliTestHead'
        for i, (error, text) in enumerate(errors):
            if text is None:
                with pytest.raises(type(error), match=error.args[0]):
                    build(type=kind, error=i)
            else:
                assert fails(build, type=kind, error=i) == (
                    f'net.py: {kind} cannot be built: {text}'
                )
        assert fails(build, type='NoSuchHead').startswith(
            'net.py: NoSuchHead is not registered: check its name, or have the config import'
        )
    finally:
        for name in ('CliTestHead', 'CliTestModel'):
            MODELS._module_dict.pop(name)


# the programs


def test_run_tool(capsys):
    def main():
        raise cli.UserError('no luck')

    with pytest.raises(SystemExit) as caught:
        cli.run_tool(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == 'ERROR: no luck\n'
    with pytest.raises(ZeroDivisionError):
        cli.run_tool(lambda: 1 / 0)


def run_python(tool, *args, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *args],
        cwd=cwd,
        text=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': ''},
    )


CONFIG = f"""
default_scope = {SCOPE!r}
model = optim_wrapper = train_cfg = test_cfg = test_evaluator = dict(type='A')
train_dataloader = test_dataloader = dict(dataset=dict(type='CocoDataset', data_root='none'))
"""


def test_tools_report_mistakes_without_traceback(write, tmp_path):
    write(CONFIG)
    for tool, args, expected in (
        ('train.py', ['net.py'], f'ERROR: data directory {tmp_path}/none is missing'),
        ('test.py', ['net.py', 'no.pth'], 'ERROR: checkpoint no.pth does not exist\n'),
    ):
        done = run_python(tool, *args, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    'script, args, tool, expected',
    [
        (
            'dist_train.sh',
            ['c.py', '4', '--amp'],
            'train.py',
            '--nproc_per_node=4 {tool} c.py --launcher pytorch --amp',
        ),
        (
            'dist_test.sh',
            ['c.py', 'a b.pth', '4', '--tta'],
            'test.py',
            '--nproc_per_node=4 {tool} c.py a b.pth --launcher pytorch --tta',
        ),
        (
            'slurm_train.sh',
            ['part', 'job', 'c.py', 'work', '--amp'],
            'train.py',
            'python -u {tool} c.py --work-dir work --launcher slurm --amp',
        ),
        (
            'slurm_test.sh',
            ['part', 'job', 'c.py', 'a b.pth'],
            'test.py',
            'python -u {tool} c.py a b.pth --launcher slurm',
        ),
    ],
)
def test_launch_scripts(tmp_path, script, args, tool, expected):
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '4', 'SRUN_ARGS': '-x n1'}
    path = ROOT / 'tools' / script
    done = subprocess.run([path, *args], env=env, text=True, capture_output=True)
    words = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert ' '.join(words).endswith(expected.format(tool=ROOT / 'tools' / tool))
    assert ('a b.pth' in words) == ('a b.pth' in args)
    if script.startswith('slurm'):
        assert {
            '--partition=part',
            '--job-name=job',
            '--ntasks=4',
            '--gres=gpu:4',
            '-x',
            'n1',
        } <= set(words)
    done = subprocess.run([path, 'c.py'], env=env, text=True, capture_output=True)
    assert done.returncode == 2 and done.stderr.startswith('usage: ')


# errors of this package's own classes


def test_run_tool_prints_our_value_errors_and_passes_others_on(capsys):
    from dynsp_mm.ops import Selection

    def ours():
        try:
            Selection('best')
        except ValueError as error:  # as mmengine's registry does
            raise type(error)(f'class `X` in y.py: {error}')

    with pytest.raises(SystemExit) as caught:
        cli.run_tool(ours)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "ERROR: selection type='best': must be 'topk', 'threshold' or 'random'\n"
    )
    with pytest.raises(ValueError, match='invalid literal'):
        cli.run_tool(lambda: int('x'))


@pytest.mark.parametrize('value', [1, 2.5, True])
def test_numbers_that_are_large_enough(value):
    cli.check_least(('--a', [value, 7], 1), ('--b', [], 1))


@pytest.mark.parametrize('value', [0, -1, float('nan'), float('inf')])
def test_numbers_that_are_not(value):
    with pytest.raises(cli.UserError, match=f'^--b {value}: must be 1 or more$'):
        cli.check_least(('--a', [1], 1), ('--b', [5, value], 1))


def test_where_a_file_can_be_written(tmp_path):
    cli.check_output('--out', tmp_path / 'new.json')
    with pytest.raises(cli.UserError, match='^--out .* is a directory$'):
        cli.check_output('--out', tmp_path)
    with pytest.raises(cli.UserError, match='^--out .*: there is no folder .*no$'):
        cli.check_output('--out', tmp_path / 'no/new.json')


@pytest.mark.parametrize('hooks', [None, [dict(type='SpatialSparsityHook')]])
def test_tests_are_prepared(hooks):
    cfg = Config(dict(model=dict()) if hooks is None else dict(custom_hooks=hooks))
    before = list(hooks or [])
    cli.enable_prepared(cfg, None)
    assert list(cfg.get('custom_hooks') or []) == before
    cli.enable_prepared(cfg, 'eager')
    assert cfg.custom_hooks == [*before, dict(type='PrepareForInferenceHook', backend='eager')]
