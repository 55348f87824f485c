"""Detection configs beside Mask R-CNN: what they take from mmdet."""

import pytest
import torch
from config_files import load
from mmengine.model import ExponentialMovingAverage

from dynsp_mm import DynamicSwin

SCALE = dict(t='tiny', s='small', b='base', l='large')
WIDTH = dict(t=96, s=96, b=128, l=192)
CASCADES = [
    f'cascade_maskrcnn_{family}_{size}' for family in ('dyswin', 'dyconvnext') for size in 'tsb'
]
RETINANETS = [f'retinanet_dyswin_{size}' for size in 'tsb']


@pytest.mark.parametrize('name', [*CASCADES, *RETINANETS, 'dino_dyswin_l', 'rtmdet_dyswin_b'])
def test_what_all_share(name):
    config = load(name)
    *_, family, size = name.split('_')
    backbone = config.model.backbone
    assert config.default_scope == 'mmdet'
    assert backbone.type == dict(dyswin='DynamicSwin', dyconvnext='DynamicConvNeXt')[family]
    assert backbone.keep_ratios == 0.7 and backbone.init_cfg.type == 'Pretrained'
    assert SCALE[size] in backbone.init_cfg.checkpoint
    widths = [WIDTH[size] * 2**i for i in backbone.out_indices]
    assert config.model.neck.in_channels == widths
    if family == 'dyswin':
        assert backbone.embed_dims == WIDTH[size]
        assert backbone.depths == [2, 2, 6 if size == 't' else 18, 2]
    else:
        assert backbone.arch == SCALE[size]
    assert config.custom_hooks[-1] == dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)
    assert config.custom_imports.imports == ['dynsp_mm']
    assert config.train_dataloader.dataset.data_root == 'data/coco/'


@pytest.mark.parametrize('size,drop_path', [('t', 0.2), ('s', 0.2), ('b', 0.3)])
def test_cascade_with_swin_differs_from_stvit_in_the_backbone(size, drop_path):
    config = load(f'cascade_maskrcnn_dyswin_{size}')
    assert config.model.backbone.drop_path_rate == drop_path
    if size != 't':
        published = load(f'cascade_maskrcnn_stvit_swin_{size}')
        assert {key for key in config if config[key] != published.get(key)} == {
            'model',
            'custom_hooks',
            'pretrained',
        }
        config.model.backbone = published.model.backbone
        assert config.model == published.model
    assert config.train_cfg.max_epochs == 36 and config.param_scheduler[1].milestones == [27, 33]


@pytest.mark.parametrize(
    'size,drop_path,rate,layers', [('t', 0.4, 0.7, 6), ('s', 0.6, 0.7, 12), ('b', 0.7, 0.8, 12)]
)
def test_cascade_with_convnext_is_the_published_recipe(size, drop_path, rate, layers):
    config = load(f'cascade_maskrcnn_dyconvnext_{size}')
    assert config.model.backbone.drop_path_rate == drop_path
    wrapper = config.optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper' and wrapper.optimizer.lr == 2e-4
    assert wrapper.constructor == 'LearningRateDecayOptimizerConstructor'
    assert wrapper.paramwise_cfg == dict(
        decay_rate=rate, decay_type='layer_wise', num_layers=layers
    )


@pytest.mark.parametrize('name', RETINANETS)
def test_retinanet_starts_at_the_second_stage(name):
    config = load(name)
    assert config.model.type == 'RetinaNet'
    assert config.model.backbone.out_indices == (1, 2, 3)
    assert config.train_cfg.max_epochs == 12
    assert (config.optim_wrapper.optimizer.type, config.optim_wrapper.optimizer.lr) == ('SGD', 0.01)


def test_rtmdet_keeps_its_own_hooks():
    config = load('rtmdet_dyswin_b')
    assert [hook['type'] for hook in config.custom_hooks] == [
        'EMAHook',
        'PipelineSwitchHook',
        'SpatialSparsityHook',
    ]
    switch = config.custom_hooks[1]
    assert switch.switch_epoch == 90 and switch.switch_pipeline == config.train_pipeline_stage2


def test_moving_averages_follow_a_sparse_backbone():
    """As RTMDet's hook keeps them, buffers included, whatever sizes of image have come by."""
    backbone = DynamicSwin(
        embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4], keep_ratios=0.7
    )
    averages = ExponentialMovingAverage(backbone, momentum=0.5, update_buffers=True)
    averages.update_parameters(backbone)  # the first copies
    for size in (64, 96):
        backbone(torch.rand(1, 3, size, size))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 1
    averages.update_parameters(backbone)
    own = averages.module.state_dict()
    assert own.keys() == before.keys()
    for key, _ in backbone.named_parameters():
        torch.testing.assert_close(own[key], before[key] + 0.5, msg=key)
