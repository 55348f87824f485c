"""Types of configs as names, full names and classes; scopes that the classes tell."""

import pytest
from mmdet.models import RetinaNet, SwinTransformer
from mmengine.config import Config
from mmengine.config.lazy import LazyObject
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmpretrain.models import ImageClassifier

from dynsp_mm.configuration.types import (
    find_scope,
    find_type,
    is_type,
    library_of,
    type_name,
    typed_configs,
)
from dynsp_mm.training import SpatialSparsityHook


class OwnHook(SpatialSparsityHook):
    """A hook of a user."""


class OwnClassifier(ImageClassifier):
    """A model of a user."""


class OwnModel(BaseModel):
    """A model of a user that inherits from no library's."""


FORMS = (
    'mmdet.SwinTransformer',
    'mmdet.models.SwinTransformer',
    'mmdet.models.backbones.swin.SwinTransformer',
    SwinTransformer,
    LazyObject('mmdet.models', 'SwinTransformer'),
)


@pytest.mark.parametrize('form', FORMS, ids=str)
def test_all_forms_of_a_type(form):
    for config in (form, dict(type=form)):
        assert type_name(config) == 'SwinTransformer'
        assert find_type(config) is SwinTransformer
        assert find_type(config, scope='mmseg') is SwinTransformer
    assert find_type(dict(type='SwinTransformer', _scope_='mmdet')) is SwinTransformer


def test_what_stands_for_nothing():
    assert find_type(None) is find_type(dict(depth=3)) is find_type('mmdet.Nothing') is None
    assert find_type('json') is None  # a module is no type
    assert type_name(None) == type_name({}) == ''


def test_hooks_and_what_inherits_from_them():
    names = ('SpatialSparsityHook', 'SparseTrainingHook')
    for form in (*names, 'dynsp_mm.training.SpatialSparsityHook', SpatialSparsityHook, OwnHook):
        assert is_type(dict(type=form), names, HOOKS)
    for form in ('EMAHook', 'mmengine.hooks.EMAHook', 'NoHook'):
        assert not is_type(dict(type=form), names, HOOKS)


def test_inner_configs_inherit_the_scope():
    inner = dict(type='B', _scope_='mmseg', more=[dict(type='C')])
    found = list(typed_configs(dict(type='A', x=dict(y=inner)), 'model', 'mmdet'))
    assert [(key, config['type'], scope) for key, config, scope in found] == [
        ('model', 'A', 'mmdet'),
        ('model.x.y', 'B', 'mmseg'),
        ('model.x.y.more.0', 'C', 'mmseg'),
    ]


@pytest.mark.parametrize(
    'entries,scope',
    [
        (dict(model=dict(type=RetinaNet)), 'mmdet'),
        (dict(model=dict(type='mmdet.RetinaNet')), 'mmdet'),
        (dict(model=dict(type='mmpretrain.models.ImageClassifier')), 'mmpretrain'),
        (dict(model=dict(type=OwnClassifier)), 'mmpretrain'),
        (
            dict(
                model=dict(type=OwnModel, backbone=dict(type='mmpretrain.ConvNeXt')),
                data_preprocessor=dict(type='mmdet.models.DetDataPreprocessor'),
            ),
            'mmdet',
        ),
        (
            dict(
                model=dict(type=OwnModel),
                train_dataloader=dict(dataset=dict(type='mmseg.datasets.ADE20KDataset')),
            ),
            'mmseg',
        ),
        (dict(model=dict(type=OwnModel, net=[dict(type=SwinTransformer)])), 'mmdet'),
        (dict(model=dict(type='RetinaNet')), None),
        (dict(model=dict(type=OwnModel)), None),
        (dict(), None),
    ],
)
def test_the_scope_that_classes_tell(entries, scope):
    assert find_scope(Config(entries)) == scope
    assert library_of(Config(entries)) == scope
    for given in ('mmseg', 'mmdet'):  # what is set counts
        assert library_of(Config(dict(entries, default_scope=given))) == given
    if scope:
        assert library_of(Config(dict(entries, default_scope='mmengine'))) == scope


def test_a_short_name_belongs_to_the_scope_beside_it():
    assert find_scope(Config(dict(model=dict(type='X', _scope_='mmseg')))) == 'mmseg'
    assert find_scope(Config(dict(model=dict(type='X')))) is None


@pytest.mark.parametrize('kind', ['.*qkv', '.', '', 'blocks.*.qkv', 'nowhere.Thing'])
def test_what_names_no_class_is_none(kind):
    """Such as the patterns of layers that LoRAModel takes under 'type'."""
    assert find_type(kind) is None and find_type(dict(type=kind)) is None
