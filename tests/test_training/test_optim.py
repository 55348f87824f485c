"""Which parameter learns at which rate, and decays."""

import pytest
import torch
from logs import warnings_of
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from toys import SWIN, ToyModel

from dynsp_mm import SpatialSparsityOptimWrapperConstructor
from dynsp_mm.layers import FastPath
from dynsp_mm.sparsity import TokenPredictor

CONVNEXT = dict(
    type='DynamicConvNeXt',
    keep_ratios=0.7,
    arch=dict(depths=(1, 1, 4, 1), channels=(8, 16, 32, 64)),
)


def build(model, paramwise_cfg=None, **optimizer):
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(dict(type='AdamW', lr=1e-2, weight_decay=0.05), **optimizer),
            constructor='SpatialSparsityOptimWrapperConstructor',
            paramwise_cfg=paramwise_cfg,
        ),
    )
    return wrapper.optimizer


def settings(model, paramwise_cfg=None):
    """Name -> (rate, decay)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(group['params'][0])]: (group['lr'], group['weight_decay'])
        for group in build(model, paramwise_cfg).param_groups
    }


def new_names(model):
    """By the modules' types, not by their names."""
    new = {
        f'{path}.{name}'
        for path, module in model.named_modules()
        if isinstance(module, (TokenPredictor, FastPath))
        for name, _ in module.named_parameters()
    }
    return new | {name for name, _ in model.named_parameters() if name.endswith('.fast_gamma')}


@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT], ids=lambda backbone: backbone['type'])
def test_rates_and_decay(backbone):
    model = ToyModel(backbone)
    found, new = settings(model, dict(pretrained_lr_mult=0.1)), new_names(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert 0 < len(new) < len(found)
    for name, parameter in model.named_parameters():
        expected = (1e-2 if name in new else 1e-3, 0.0 if parameter.ndim == 1 else 0.05)
        assert found[name] == pytest.approx(expected), name
    # The runner's log shows the first group's rate: it is a pretrained one.
    assert [name in new for name in found] == sorted(name in new for name in found)


def test_fractions_by_default_and_at_the_ends():
    model = ToyModel(SWIN)
    name = 'backbone.patch_embed.projection.weight'
    assert settings(model)[name] == pytest.approx((2e-3, 0.05))
    assert settings(model, dict(pretrained_lr_mult=1))[name] == pytest.approx((1e-2, 0.05))
    assert settings(model, dict(pretrained_lr_mult=0))[name] == (0, 0.05)


def test_options_of_mmengine_still_count():
    model = ToyModel(SWIN)
    model.head = torch.nn.Linear(8, 2)
    found = settings(
        model,
        dict(
            pretrained_lr_mult=0.2,
            flat_decay_mult=1.0,
            custom_keys=dict(head=dict(lr_mult=5), position_bias_table=dict(decay_mult=0)),
        ),
    )
    assert found['head.weight'] == pytest.approx((1e-2, 0.05))
    assert found['head.bias'] == pytest.approx((1e-2, 0.05))
    table = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table'
    assert found[table] == pytest.approx((2e-3, 0.0))


@pytest.mark.parametrize('key', ['head', 'backbone', 'norm', 'backbone.token_predictors.0'])
def test_keys_that_match_new_parts_by_chance_leave_them_alone(key):
    """'head' is also the name of a part of each predictor, 'backbone' of what all lie in."""
    model = ToyModel(SWIN)
    model.head = torch.nn.Linear(8, 2)
    plain, new = settings(model), new_names(model)
    found = settings(model, dict(custom_keys={key: dict(lr_mult=0.1)}))
    for name, (rate, decay) in plain.items():
        changes = key in name and (name not in new or 'token_predictors' in key)
        # Without a decay_mult of the key, norms and biases still do not decay.
        assert found[name] == pytest.approx((rate * (0.1 if changes else 1), decay)), name
    decayed = settings(model, dict(custom_keys={key: dict(decay_mult=2.0)}))
    for name, (rate, decay) in plain.items():
        changes = key in name and (name not in new or 'token_predictors' in key)
        assert decayed[name] == pytest.approx((rate, 0.1 if changes else decay)), name


def test_keys_leave_new_parts_alone_without_weight_decay_too():
    model = ToyModel(SWIN)
    groups = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=1.0),
            constructor='SpatialSparsityOptimWrapperConstructor',
            paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=5.0))),
        ),
    ).optimizer.param_groups
    assert {group['lr'] for group in groups} == {1.0, 0.2}


def test_frozen_parameters_are_left_out():
    model = ToyModel(SWIN)
    model.teacher = ToyModel(SWIN).requires_grad_(False)
    assert not any(name.startswith('teacher.') for name in settings(model))


def classifier(backbone):
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            _scope_='mmpretrain',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=8),
        )
    )


@pytest.mark.parametrize('depth', [4, 10])
@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT], ids=lambda backbone: backbone['type'])
def test_layer_decay_is_mmpretrains(backbone, depth):
    from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor

    backbone = {**backbone, 'arch': {**backbone['arch'], 'depths': (1, 2, depth, 1)}}
    model = classifier(backbone)
    theirs = LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05)),
        dict(layer_decay_rate=0.8, flat_decay_mult=0.0),
    )(model)
    expected = {
        group['param_name']: (group['lr'], group['weight_decay'])
        for group in theirs.optimizer.param_groups
    }
    whole = settings(model, dict(pretrained_lr_mult=1, layer_decay_rate=0.8))
    fifth = settings(model, dict(layer_decay_rate=0.8))
    new = new_names(model)
    assert set(whole) == set(fifth) == set(expected) and new < set(whole)
    for name, (rate, decay) in expected.items():
        if name in new:
            assert whole[name] == fifth[name] == (1e-2, decay), name
        else:
            assert whole[name] == pytest.approx((rate, decay)), name
            assert fifth[name] == pytest.approx((0.2 * rate, decay)), name
    assert whole['head.fc.weight'] == (1e-2, 0.05)
    assert len({rate for rate, _ in whole.values()}) > depth // 3 + 3


def test_layer_decay_in_a_model_that_knows_no_depths():
    """A detector's: the backbone alone knows them."""
    model = ToyModel(SWIN)
    model.backbone_head = torch.nn.Linear(8, 2)
    found = settings(model, dict(pretrained_lr_mult=0.5, layer_decay_rate=0.5))
    assert found['backbone.patch_embed.projection.weight'] == pytest.approx((5e-3 * 0.5**8, 0.05))
    assert found['backbone.stages.3.blocks.0.ffn.layers.1.weight'] == pytest.approx(
        (5e-3 * 0.5, 0.05)
    )
    assert found['backbone_head.weight'] == pytest.approx((5e-3, 0.05))
    assert found['backbone.token_predictors.0.proj.weight'] == pytest.approx((1e-2, 0.05))


def test_layer_decay_without_depths_is_an_error():
    class Unknown(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.token_predictors = torch.nn.Linear(8, 2)

        def get_layer_depth(self, param_name):
            """As of mmpretrain's classifiers, which ask the backbone."""

    assert settings(Unknown(), dict(layer_decay_rate=1))
    with pytest.raises(
        ValueError, match='layer_decay_rate=0.9: Unknown has no backbone with get_layer_depth'
    ):
        settings(Unknown(), dict(layer_decay_rate=0.9))


@pytest.mark.parametrize(
    'paramwise_cfg,message',
    [
        (dict(layer_decay_rate=0), r'layer_decay_rate=0: must be a number in \(0, 1\]'),
        (dict(layer_decay_rate=1.1), 'layer_decay_rate=1.1: must be'),
        (dict(layer_decay_rate=float('nan')), 'layer_decay_rate=nan: must be'),
        (dict(layer_decay_rate=True), 'layer_decay_rate=True: must be'),
        (dict(layer_decay_rate='0.9'), "layer_decay_rate='0.9': must be"),
        (dict(pretrained_lr_mult=-0.1), r'pretrained_lr_mult=-0.1: must be a number in \[0, 1\]'),
        (dict(pretrained_lr_mult=1.1), 'pretrained_lr_mult=1.1'),
        (dict(pretrained_lr_mult=float('nan')), 'pretrained_lr_mult=nan'),
        (dict(pretrained_lr_mult=True), 'pretrained_lr_mult=True'),
        (dict(pretrained_lr_mult='0.2'), "pretrained_lr_mult='0.2'"),
        (dict(pretrain_lr_mult=0.2), "unknown option 'pretrain_lr_mult'"),
        (dict(decay_rate=0.9), "unknown option 'decay_rate'.*inherited, set .* _delete_=True"),
    ],
)
def test_bad_options(paramwise_cfg, message):
    with pytest.raises(ValueError, match=message):
        build(ToyModel(SWIN), paramwise_cfg)


def test_bad_types():
    with pytest.raises(TypeError, match='paramwise_cfg=0.2: must be a dict'):
        SpatialSparsityOptimWrapperConstructor(dict(optimizer=dict(type='AdamW', lr=1e-2)), 0.2)
    with pytest.raises(ValueError, match='SpatialSparsityOptimWrapperConstructor needs its lr'):
        SpatialSparsityOptimWrapperConstructor(dict(optimizer=dict(type='AdamW')))


def test_a_model_without_new_parts_is_an_error():
    with pytest.raises(ValueError, match='ToyModel has no token predictors or fast paths'):
        build(ToyModel({**SWIN, 'keep_ratios': None}))


def test_frozen_new_parts_are_said_to_leave_nothing_the_full_rate():
    with warnings_of() as said:
        optimizer = build(ToyModel({**SWIN, 'frozen_stages': 2}))
    assert {group['lr'] for group in optimizer.param_groups if 'lr' in group} >= {2e-3}
    text = said[-1]  # after mmengine's own
    assert 'are frozen' in text and 'everything that is trained has 0.2 of it' in text


def test_name_is_registered():
    assert (
        OPTIM_WRAPPER_CONSTRUCTORS.get('SpatialSparsityOptimWrapperConstructor')
        is SpatialSparsityOptimWrapperConstructor
    )


def test_a_delete_that_replaces_nothing_is_no_option():
    """Mmengine leaves the word where a config inherits nothing to delete."""
    model, cfg = ToyModel(SWIN), dict(pretrained_lr_mult=0.1)
    cfg['custom_keys'] = dict(norm=dict(decay_mult=0.5))
    marked = dict(cfg, _delete_=True, custom_keys=dict(cfg['custom_keys'], _delete_=True))
    assert settings(model, marked) == settings(model, cfg)
    assert marked['_delete_']  # the config of the run stays as it is
