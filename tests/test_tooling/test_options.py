import importlib.util
import os
from pathlib import Path

import pytest
from in_memory import SCOPE, fails, make
from mmengine.config import Config
from mmengine.logging import MMLogger

from dynsp_mm.configuration import read
from dynsp_mm.errors import UserError
from dynsp_mm.tooling import options as cli


@pytest.fixture
def accelerator(monkeypatch):
    def set_visible(visible):
        monkeypatch.setattr(cli, 'has_accelerator', lambda: visible)

    return set_visible


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
    monkeypatch.setattr(read, 'enable_mmseg_base_configs', lambda: None)
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


def test_a_run_made_sparse_has_a_folder_of_its_own(caplog):
    """Each ratio has, so that a run replaces no other and finds its own checkpoints again."""
    names = {}
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        for sparse in (None, '0.7', '0.70', '0.5', '0.7,0.5,0.3'):
            cfg = make()
            caplog.clear()
            cli.set_work_dir(cfg, sparse=sparse)
            names[sparse] = cfg.work_dir
            assert caplog.text.count(f'writes to {cfg.work_dir};') == bool(sparse)
    finally:
        logger.removeHandler(caplog.handler)
    assert names == {
        None: 'work_dirs/net',
        '0.7': 'work_dirs/net_sparse_0.7',
        '0.70': 'work_dirs/net_sparse_0.7',
        '0.5': 'work_dirs/net_sparse_0.5',
        '0.7,0.5,0.3': 'work_dirs/net_sparse_0.7_0.5_0.3',
    }
    for cfg, given, expected in ((make(work_dir='mine'), None, 'mine'), (make(), 'given', 'given')):
        cli.set_work_dir(cfg, given, '0.7')
        assert cfg.work_dir == expected


@pytest.mark.parametrize(
    'ranks, said',
    [
        (dict(RANK='0', LOCAL_RANK='0'), True),
        (dict(RANK='8', LOCAL_RANK='0'), False),  # the first of a second machine
        (dict(SLURM_PROCID='1'), False),
        (dict(OMPI_COMM_WORLD_RANK='1'), False),
    ],
)
def test_one_process_says_the_folder_in_two_lines_of_a_terminal(ranks, said, caplog, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        cfg = Config(dict(), '# no file', 'mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py')
        cli.set_work_dir(cfg, sparse='0.7')
    finally:
        logger.removeHandler(caplog.handler)
    assert len(caplog.messages) == said
    prefix = len('01/01 00:00:00 - mmengine - WARNING - ')
    assert all(prefix + len(message) <= 2 * 80 for message in caplog.messages)


@pytest.mark.parametrize('text', ['model', '=3', 'a=[(1,2),(3'])
def test_what_is_no_entry_is_a_line_of_usage(text, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse_overrides([text])
    assert caught.value.code == 2 and '--cfg-options' in capsys.readouterr().err


def test_hooks_are_a_list(write):
    path = write(f'default_scope = {SCOPE!r}')
    assert fails(cli.load_config, path, {'custom_hooks.0.type': 'EMAHook'}) == (
        f"{path}: custom_hooks={{'0': {{'type': 'EMAHook'}}}}: must be a list of dicts"
    )
    assert f'{path}: default_scope is 5; ' in fails(cli.load_config, path, {'default_scope': 5})


# --sparse beside options and entries

SWIN = "model = dict(type='Any', backbone=dict(type='SwinTransformer'))"


@pytest.fixture
def logged(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def sparse(write):
    """Load a config of a Swin with further lines."""

    def load(options=None, ratios='0.7', text='', model=SWIN):
        pytest.importorskip('mmdet')
        path = write(f"default_scope = 'mmdet'\n{model}\n{text}")
        return cli.load_config(path, options, ratios)

    return load


def test_ratios_are_said_once(sparse, logged):
    for ratio in (0.5, None, [0.7, 0.6, 0.5]):
        text = fails(sparse, {'model.backbone.keep_ratios': ratio})
        assert text.startswith(
            f'--sparse 0.7 and --cfg-options model.backbone.keep_ratios={ratio} contradict each'
        )
    own = "model = dict(backbone=dict(type='DynamicSwin', keep_ratios=[0.9, 0.8, 0.7]))"
    option = {'model.backbone.keep_ratios': (0.9, 0.8, 0.1)}
    assert 'contradict each other' in fails(sparse, option, '0.9,0.8,0.7', model=own)
    assert sparse(option, '0.9,0.8,0.1', model=own).model.backbone.keep_ratios == (0.9, 0.8, 0.1)
    assert 'replaces keep_ratios' not in logged.text.splitlines()[-1:]
    cfg = sparse({'model.backbone.keep_ratios': 0.7, 'model.backbone.selection': 'random'})
    assert cfg.model.backbone.keep_ratios == 0.7 and cfg.model.backbone.selection == 'random'
    logged.clear()
    assert sparse(None, '0.5', model=own).model.backbone.keep_ratios == 0.5
    assert '--sparse 0.5 replaces keep_ratios=[0.9, 0.8, 0.7] that the config has' in logged.text


@pytest.mark.parametrize('backbone', ['model.backbone', 'model.detector'])
def test_ratios_of_another_place(sparse, backbone):
    model = "model = dict(detector=dict(backbone=dict(type='SwinTransformer')))"
    text = fails(sparse, {f'{backbone}.keep_ratios': 0.5}, model=model)
    assert text == (
        f'--sparse 0.7 and --cfg-options {backbone}.keep_ratios=0.5: the backbone with ratios is '
        'model.detector.backbone, and --sparse RATIO sets them'
    )


def test_options_for_the_hook_that_is_added(sparse):
    cfg = sparse({'custom_hooks.0.logit_weight': 0, 'model.backbone.with_cp': True})
    assert cfg.custom_hooks == [dict(type='SpatialSparsityHook', logit_weight=0)]
    assert cfg.model.backbone.with_cp
    text = "custom_hooks = [dict(type='EMAHook')]"
    cfg = sparse({'custom_hooks.0.momentum': 0.1, 'custom_hooks.1.logit_weight': 0}, text=text)
    assert cfg.custom_hooks == [
        dict(type='EMAHook', momentum=0.1),
        dict(type='SpatialSparsityHook', logit_weight=0),
    ]
    cfg = sparse({'custom_hooks': None, 'custom_hooks.0.logit_weight': 0}, text=text)
    assert cfg.custom_hooks == [dict(type='SpatialSparsityHook', logit_weight=0)]
    assert 'custom_hooks.5.a' in fails(sparse, {'custom_hooks.5.a': 1}, text=text)
    assert 'must be a list' in fails(sparse, {'custom_hooks.0.a': 1}, '1')  # adds none
    hooks = "custom_hooks = [dict(type='SpatialSparsityHook')]"
    cfg = sparse({'custom_hooks.0.logit_weight': 0}, text=hooks)
    assert cfg.custom_hooks == [dict(type='SpatialSparsityHook', logit_weight=0)]


def test_a_hook_that_is_taken_out_is_named(sparse, logged):
    assert sparse(None, '1', "custom_hooks = [dict(type='SpatialSparsityHook')]").custom_hooks == []
    assert 'the SpatialSparsityHook of the config, which nothing is left' in logged.text


def test_from_dense_and_options(sparse, tmp_path):
    dense = tmp_path / 'dense.pth'
    dense.touch()
    for key in ('load_from', 'custom_hooks.0.teacher', 'custom_hooks.0.teacher.config'):
        options = {key: 'other.pth'}
        assert 'contradict each other' in fails(
            cli.enable_from_dense, sparse(options), str(dense), options
        )
    cli.enable_from_dense(sparse(), str(dense), {'load_from': str(dense)})


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
    cfg.resume = True  # of the config, with which mmengine would resume from load_from
    cli.enable_resume(cfg, 'auto')
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


@pytest.mark.parametrize('value', [1, 2.5, True])
def test_numbers_that_are_large_enough(value):
    cli.check_least(('--a', [value, 7], 1), ('--b', [], 1))


@pytest.mark.parametrize('value', [0, -1, float('nan'), float('inf')])
def test_numbers_that_are_not(value):
    with pytest.raises(UserError, match=f'^--b {value}: must be 1 or more$'):
        cli.check_least(('--a', [1], 1), ('--b', [5, value], 1))


def test_where_a_file_can_be_written(tmp_path):
    cli.check_output('--out', tmp_path / 'new.json')
    with pytest.raises(UserError, match='^--out .* is a directory$'):
        cli.check_output('--out', tmp_path)
    with pytest.raises(UserError, match='^--out .*: there is no folder .*no$'):
        cli.check_output('--out', tmp_path / 'no/new.json')


@pytest.mark.parametrize('hooks', [None, [dict(type='SpatialSparsityHook')]])
def test_tests_are_prepared(hooks):
    cfg = Config(dict(model=dict()) if hooks is None else dict(custom_hooks=hooks))
    before = list(hooks or [])
    cli.enable_prepared(cfg, None)
    assert list(cfg.get('custom_hooks') or []) == before
    cli.enable_prepared(cfg, 'eager')
    assert cfg.custom_hooks == [*before, dict(type='PrepareForInferenceHook', backend='eager')]
