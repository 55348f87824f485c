"""The ImageNet configs are the published recipe, and start from whole dense classifiers."""

import numpy as np
import pytest
import torch
from config_files import CONFIGS, load, path_of
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules

from dynsp_mm.tooling import options as cli
from dynsp_mm.training.new_parameters import is_new

VARIANTS = [
    (family, size, keep)
    for family, keeps in (('dyswin', [0.7]), ('dyconvnext', [0.7, 0.9]))
    for size in 'tsb'
    for keep in keeps
]
TYPES = dict(dyswin='DynamicSwin', dyconvnext='DynamicConvNeXt')
ARCHS = dict(t='tiny', s='small', b='base')


def name_of(family, size, keep=0.7):
    return f'cls_{family}_{size}_{"r09_" if keep == 0.9 else ""}in1k'


def test_these_are_all():
    names = {path.stem for path in CONFIGS.glob('cls_dy*.py')}
    assert {name_of(*variant) for variant in VARIANTS} == names


@pytest.mark.parametrize('family,size,keep', VARIANTS)
def test_is_the_published_recipe(family, size, keep):
    config = load(name_of(family, size, keep))
    backbone, head = config.model.backbone, config.model.head
    assert (backbone.type, backbone.arch, backbone.keep_ratios) == (
        TYPES[family],
        ARCHS[size],
        keep,
    )
    assert backbone.drop_path_rate == (0.5 if size == 'b' else 0.2)
    assert backbone.mixing == 'two_stream'  # as the authors trained
    assert head.num_classes == 1000 and head.in_channels == (1024 if size == 'b' else 768)
    assert (head.loss.type, head.loss.label_smooth_val) == ('LabelSmoothLoss', 0.1)
    assert [(augment.type, augment.alpha) for augment in config.model.train_cfg.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]

    wrapper = config.optim_wrapper
    assert wrapper.optimizer == dict(type='AdamW', lr=4e-3, weight_decay=0.05)
    assert wrapper.paramwise_cfg == dict(pretrained_lr_mult=0.2, flat_decay_mult=0.0)
    assert (
        wrapper.constructor == 'SpatialSparsityOptimWrapperConstructor'
        and 'clip_grad' not in wrapper
    )
    warm_up, cosine = config.param_scheduler
    assert (warm_up.type, warm_up.end) == ('LinearLR', 20)
    assert (cosine.type, cosine.begin, cosine.end) == ('CosineAnnealingLR', 20, 120)
    assert cosine.eta_min_ratio * wrapper.optimizer.lr == pytest.approx(1e-6)
    assert config.train_cfg == dict(by_epoch=True, max_epochs=120, val_interval=1)
    assert config.train_dataloader.batch_size == 128
    assert config.auto_scale_lr == dict(base_batch_size=32 * 128)
    assert [dict(hook) for hook in config.custom_hooks] == [
        dict(type='SpatialSparsityHook', teacher=config.load_from),
        dict(type='HoldPretrainedHook', epochs=5),
        dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL'),
    ]
    assert config.custom_imports.imports == ['dynsp_mm']

    dataset = config.train_dataloader.dataset
    assert dataset.type == 'ImageNet' and dataset.pipeline[1].scale == 224
    assert config.load_from.startswith('https://') and ARCHS[size] in config.load_from


def test_the_command_for_8_gpus_fits_the_hooks():
    """What the docstrings give: the average is taken once a step, not once a batch."""
    options = {'optim_wrapper.accumulative_counts': 4, 'custom_hooks.2.interval': 4}
    for family in TYPES:
        path = path_of(name_of(family, 't'))
        assert all(f'{option}={value}' in path.read_text() for option, value in options.items())
        config = cli.load_config(str(path), options)
        assert (config.custom_hooks[2].type, config.custom_hooks[2].interval) == ('EMAHook', 4)


def small(family):
    """The config of size t with a network that is quick to build."""
    register_all_modules(init_default_scope=False)
    init_default_scope('mmpretrain')
    config = load(name_of(family, 't'))
    config.model.backbone.arch = dict(
        dyswin=dict(embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4]),
        dyconvnext=dict(depths=[1, 1, 4, 1], channels=[16, 32, 64, 128]),
    )[family]
    config.model.head.in_channels = 128
    config.model.data_preprocessor = config.data_preprocessor
    return config


@pytest.mark.parametrize('family', TYPES)
def test_a_dense_classifier_loads_with_its_head(family):
    config = small(family)
    sparse = MODELS.build(config.model)
    config.model.backbone.type = dict(dyswin='SwinTransformer', dyconvnext='ConvNeXt')[family]
    del config.model.backbone.keep_ratios
    del config.model.backbone.mixing
    dense = MODELS.build(config.model)
    missing, unexpected = sparse.load_state_dict(dense.state_dict(), strict=False)
    new = {name for name, _ in sparse.named_parameters() if is_new(name)}
    assert new and set(missing) == new and not unexpected
    assert sparse.head.fc.weight.equal(dense.head.fc.weight)


@pytest.mark.parametrize('family', TYPES)
def test_trains_on_mixed_images(family):
    config = small(family)
    model = MODELS.build(config.model).train()
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    np.random.seed(0)
    kinds = set()
    for _ in range(6):
        data = model.data_preprocessor(
            default_collate(
                [
                    dict(
                        inputs=torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8),
                        data_samples=DataSample().set_gt_label(label),
                    )
                    for label in range(4)
                ]
            ),
            True,
        )
        scores = torch.stack([sample.gt_score for sample in data['data_samples']])
        torch.testing.assert_close(scores.sum(1), torch.ones(4))
        kinds.add(scores.count_nonzero(1).max().item())
        losses = model(**data, mode='loss')
        assert torch.isfinite(losses['loss'])
        losses['loss'].backward()
        optim_wrapper.step()
        optim_wrapper.zero_grad()
    assert max(kinds) == 2  # images of two classes
