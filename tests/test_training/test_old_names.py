"""Names of earlier versions."""

import sys
import warnings

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS
from toys import SWIN, ToyModel, toy_runner

import dynsp_mm
from dynsp_mm import SpatialSparsityHook, SpatialSparsityOptimWrapperConstructor, training
from dynsp_mm.training import old_names

NAMES = dict(
    SparseTrainingHook=SpatialSparsityHook,
    SparseOptimWrapperConstructor=SpatialSparsityOptimWrapperConstructor,
)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(old_names, '_said', set())


@pytest.mark.parametrize('module', [dynsp_mm, training])
@pytest.mark.parametrize('name', NAMES)
def test_imports_name_the_new_one_once(module, name):
    new = NAMES[name]
    with pytest.warns(FutureWarning, match=f'{name} is called {new.__name__} now'):
        assert getattr(module, name) is new
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert getattr(module, name) is new


def test_from_import():
    with pytest.warns(FutureWarning) as said:
        from dynsp_mm import SparseTrainingHook
    assert SparseTrainingHook is SpatialSparsityHook
    assert [warning.filename for warning in said] == [__file__]


def test_other_names_are_still_unknown():
    with pytest.raises(AttributeError, match="module 'dynsp_mm' has no attribute 'SparseHook'"):
        _ = dynsp_mm.SparseHook
    assert not hasattr(training, 'SparseHook')
    assert sys.modules['dynsp_mm'] is dynsp_mm


def test_a_config_with_the_old_hook_builds_the_new_one():
    with pytest.warns(FutureWarning, match='SparseTrainingHook is called SpatialSparsityHook now'):
        hook = HOOKS.build(dict(type='SparseTrainingHook', keep_ratio_weight=3))
    assert type(hook) is SpatialSparsityHook and hook.keep_ratio_weight == 3
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        HOOKS.build(dict(type='SparseTrainingHook'))


def test_a_config_with_the_old_constructor_builds_the_same_groups():
    model = ToyModel(SWIN)

    def groups(constructor):
        cfg = dict(optimizer=dict(type='AdamW', lr=1e-2), constructor=constructor)
        return [
            (id(group['params'][0]), group['lr'])
            for group in build_optim_wrapper(model, cfg).optimizer.param_groups
        ]

    with pytest.warns(FutureWarning, match='is called SpatialSparsityOptimWrapperConstructor now'):
        old = groups('SparseOptimWrapperConstructor')
    assert old == groups('SpatialSparsityOptimWrapperConstructor')


def test_the_old_hook_in_a_run(tmp_path):
    with pytest.warns(FutureWarning, match='SpatialSparsityHook'):
        runner = toy_runner(tmp_path, [dict(type='SparseTrainingHook', priority='LOW')])
    runner.train()
    log = next(tmp_path.glob('*/vis_data/*.json')).read_text()
    assert 'loss_keep_ratio' in log
