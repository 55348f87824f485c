"""Configs in python style become text that loads anywhere, or a line says why they cannot."""

import pytest
from mmengine.config import Config

from dynsp_mm.configuration.whole import is_python_style, whole_text
from dynsp_mm.errors import UserError
from dynsp_mm.tooling.commands.sparsify import main
from dynsp_mm.tooling.options import enable_from_dense, enable_sparse, load_config

TEXT = """
import os.path as osp
import re
from mmengine.config import read_base
from mmpretrain.models import ImageClassifier, LinearClsHead, SwinTransformer
from dynsp_mm import SpatialSparsityHook

default_scope = None
def double(value):
    return 2 * value
model = dict(
    type=ImageClassifier, backbone=dict(type=SwinTransformer, img_size=double(32)),
    head=dict(type=LinearClsHead, num_classes=2, in_channels=768))
"""
HEIR = """
from mmengine.config import read_base
with read_base():
    from .net import *
model.head.update(num_classes=3)
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    write(TEXT, 'net.py')
    return write


@pytest.mark.parametrize('options', [(), ('--full',)], ids=str)
def test_what_is_printed_loads(write, options, tmp_path, capsys):
    path = write(HEIR, 'heir-of-it.py')
    assert is_python_style(Config.fromfile(path))
    main([path, '0.7', *options])
    (tmp_path / 'elsewhere').mkdir()
    cfg = load_config(write(capsys.readouterr().out, 'elsewhere/sparse.py'))
    assert not is_python_style(cfg)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.model.type == 'mmpretrain.models.ImageClassifier'
    assert cfg.model.backbone == dict(type='DynamicSwin', img_size=64, keep_ratios=0.7)
    assert cfg.model.head.num_classes == 3
    assert [hook.type for hook in cfg.custom_hooks] == ['SpatialSparsityHook']
    assert cfg.custom_imports.imports == ['dynsp_mm']


@pytest.mark.parametrize(
    'entry,shown',
    [
        ('torch.float16', 'float16'),
        ('[torch.nn.ReLU]', 'ReLU'),
        ("float('inf')", 'inf'),
        ('double', '<function double'),
    ],
)
def test_what_text_cannot_hold(write, entry, shown):
    path = write(f'import torch\n{TEXT}\nmodel.update(extra={entry})\n', 'other.py')
    with pytest.raises(UserError, match=f'other.py: model.extra.* is {shown}.*--sparse RATIO'):
        whole_text(Config.fromfile(path))


def test_hooks_that_are_classes(write):
    checkpoint = write('', 'dense.pth')
    path = write(f'{TEXT}\ncustom_hooks = [dict(type=SpatialSparsityHook)]\n', 'hooked.py')
    cfg = load_config(path)
    enable_sparse(cfg, '0.7')
    enable_from_dense(cfg, checkpoint)
    (hook,) = cfg.custom_hooks
    assert hook.teacher == cfg.load_from == checkpoint
    enable_sparse(cfg, '1')
    assert cfg.custom_hooks == []


def test_styles_do_not_mix(write):
    path = write("_base_ = './net.py'\n", 'mixed.py')
    with pytest.raises(UserError, match='mixed.py, or a file .* inherited by .with read_base'):
        load_config(path)


def test_constructors_and_runners_that_are_classes(write):
    lines = (
        'from mmengine.runner import Runner\n'
        'from dynsp_mm import SpatialSparsityOptimWrapperConstructor\n'
        'runner_type = Runner\n'
        'optim_wrapper = dict(constructor=SpatialSparsityOptimWrapperConstructor)\n'
    )
    text = whole_text(Config.fromfile(write(f'{TEXT}\n{lines}', 'classes.py')))
    assert "constructor='dynsp_mm.SpatialSparsityOptimWrapperConstructor'" in text
    assert "runner_type = 'mmengine.runner.Runner'" in text
