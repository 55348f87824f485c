"""Backbones in models, in models inside models, in wrappers and in lists."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.models import SwinTransformer

from dynsp_mm import DynamicSwin
from dynsp_mm.configuration.places import find_backbone
from dynsp_mm.configuration.swap import parse_swap, sparsify
from dynsp_mm.errors import UserError


class OwnSwin(SwinTransformer):
    """A dense backbone of a user."""


class OwnDynamicSwin(DynamicSwin):
    """A sparse backbone of a user."""


def make(**model):
    return Config(dict(default_scope='mmdet', model=dict(type='Any', **model)))


DENSE = dict(type='SwinTransformer')
RESNET = dict(type='ResNet', depth=50)
SPARSE = dict(type='DynamicSwin', keep_ratios=0.9)


@pytest.mark.parametrize(
    'model,key',
    [
        (dict(backbone=DENSE), 'model.backbone'),
        (dict(backbone=DENSE, teacher=dict(backbone=DENSE)), 'model.backbone'),
        (dict(detector=dict(type='RetinaNet', backbone=DENSE)), 'model.detector.backbone'),
        (dict(backbone=dict(type='LoRAModel', module=DENSE)), 'model.backbone.module'),
        (dict(models=[dict(backbone=RESNET), dict(backbone=DENSE)]), 'model.models.1.backbone'),
        (dict(vision_encoder=DENSE, text_encoder=dict(type='BertModel')), 'model.vision_encoder'),
        (dict(one=dict(backbone=SPARSE), teacher=dict(backbone=DENSE)), 'model.one.backbone'),
    ],
)
def test_the_one_that_is_meant(model, key):
    cfg = make(**model)
    assert find_backbone(cfg).key == key
    before = cfg.model.to_dict()
    changes = sparsify(cfg, 0.7)
    place = find_backbone(cfg)
    assert place.key == key
    assert place.config['type'] == 'DynamicSwin' and place.config['keep_ratios'] == 0.7
    # An heir of the config that sets what is told has the same model.
    heir = Config(dict(default_scope='mmdet', model=before))
    heir.merge_from_dict(changes)
    assert heir.model == cfg.model


def test_of_several_one_must_be_named():
    models = dict(one=dict(backbone=DENSE), two=dict(backbone=DENSE))
    text = 'has 2 backbones that can be made sparse: model.one.backbone, model.two.backbone; name'
    for function in (find_backbone, lambda cfg: sparsify(cfg, 0.7)):
        with pytest.raises(UserError, match=text):
            function(make(**models))
    cfg = make(**models)
    sparsify(cfg, *parse_swap('model.two.backbone=0.7,0.5,0.3'))
    assert cfg.model.one.backbone == DENSE
    assert cfg.model.two.backbone.keep_ratios == (0.7, 0.5, 0.3)
    sparsify(cfg, 0.6)  # the one that is sparse
    assert cfg.model.two.backbone.keep_ratios == 0.6
    with pytest.raises(
        UserError, match='has no model.three with a type; .* model.one.backbone, mod'
    ):
        sparsify(cfg, *parse_swap('model.three=0.7'))
    with pytest.raises(UserError, match='has no model.three with a type$'):
        sparsify(make(backbone=RESNET), *parse_swap('model.three=0.7'))


def test_what_cannot_be_swapped_can_be_measured():
    assert find_backbone(make(backbone=RESNET)).key == 'model.backbone'
    cfg = make(detector=dict(backbone=RESNET))
    assert find_backbone(cfg).key == 'model.detector.backbone'
    with pytest.raises(UserError, match='model.detector.backbone is a ResNet; what can'):
        sparsify(cfg, 0.7)
    with pytest.raises(UserError, match='is a ResNet'):  # another module is not meant
        sparsify(make(backbone=RESNET, encoder=DENSE), 0.7)
    with pytest.raises(UserError, match='has 2 backbones in its model'):
        find_backbone(make(a=dict(backbone=RESNET), b=dict(backbone=RESNET)))
    with pytest.raises(UserError, match='has no model.backbone with a type'):
        find_backbone(make())


@pytest.mark.parametrize(
    'kind',
    [
        'mmdet.models.SwinTransformer',
        'mmdet.models.backbones.swin.SwinTransformer',
        'mmseg.models.backbones.SwinTransformer',
    ],
)
def test_full_names_have_the_defaults_of_their_class(kind):
    cfg = make(backbone=dict(type=kind, embed_dims=48))
    cfg.default_scope = 'mmpretrain'
    sparsify(cfg, 0.7)
    backbone = cfg.model.backbone
    assert backbone.out_indices == (0, 1, 2, 3) and backbone.embed_dims == 48
    assert backbone.type == 'DynamicSwin'


def test_classes_of_users():
    cfg = make(backbone=dict(type=OwnDynamicSwin, keep_ratios=0.9))
    sparsify(cfg, 0.7)
    assert cfg.model.backbone == dict(type=OwnDynamicSwin, keep_ratios=0.7)
    with pytest.raises(UserError, match=r'OwnSwin \(a class of .* derive it from DynamicSwin'):
        sparsify(make(backbone=dict(type=OwnSwin)), 0.7)


def test_a_class_of_a_user_by_its_short_name(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'OwnDynamicSwin', OwnDynamicSwin)
    cfg = make(backbone=dict(type='OwnDynamicSwin'))
    sparsify(cfg, 0.7)
    assert cfg.model.backbone == dict(type='OwnDynamicSwin', keep_ratios=0.7)


def test_the_scope_of_a_config_counts():
    """``_scope_``, of a config or of one around it, is another way to say 'scope.Name'."""
    expected = make(backbone=dict(type='mmpretrain.SwinTransformer'))
    sparsify(expected, 0.7)
    for model in (
        dict(backbone=dict(DENSE, _scope_='mmpretrain')),
        dict(backbone=DENSE, _scope_='mmpretrain'),
    ):
        cfg = make(**model)
        assert find_backbone(cfg).alone == dict(DENSE, _scope_='mmpretrain')
        sparsify(cfg, 0.7)
        swapped = dict(cfg.model.backbone)
        swapped.pop('_scope_', None)
        assert swapped == expected.model.backbone
