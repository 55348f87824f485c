"""Configs that start from a dense model and keep it as their teacher."""

import copy

import pytest
import torch
from config_files import CONFIGS, ROOT, load, path_of, plain
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from dynsp_mm import SpatialSparsityHook
from dynsp_mm.tooling import options as cli
from dynsp_mm.training.new_parameters import is_new

NAMES = sorted(path.stem for path in CONFIGS.glob('*_teacher.py'))
SMALL = dict(
    dyswin=dict(embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4]),
    dyconvnext=dict(arch=dict(depths=[1, 1, 4, 1], channels=[16, 32, 64, 128])),
)
CHANNELS = [16, 32, 64, 128]


def test_all_are_there():
    assert set(NAMES) == {
        *(f'maskrcnn_{name}_teacher' for name in ('dyswin_t', 'dyswin_s', 'dyconvnext_t')),
        *(f'cascade_maskrcnn_dyswin_{size}_teacher' for size in 'tsb'),
        *(f'cascade_maskrcnn_dyconvnext_{size}_teacher' for size in 'ts'),
        *(f'upernet_{family}_{size}_ade20k_teacher' for family in SMALL for size in 'tsb'),
    }


@pytest.mark.parametrize('name', NAMES)
def test_differs_from_the_config_without_a_teacher_as_promised(name):
    config, base = load(name), load(name.removesuffix('_teacher'))
    assert [plain(hook) for hook in config.custom_hooks] == [
        dict(type='SpatialSparsityHook', teacher=config.load_from)
    ]
    assert config.load_from.startswith('https://') and config.load_from.endswith('.pth')
    base.model.backbone.init_cfg = None
    assert plain(config.model) == plain(base.model)
    for loader in ('train_dataloader', 'val_dataloader'):
        assert plain(config[loader]) == plain(base[loader])
    # Pretrained parameters have the rate of dense training, new parts five times that.
    wrapper = config.optim_wrapper
    assert wrapper.constructor == 'SpatialSparsityOptimWrapperConstructor'
    mult = wrapper.paramwise_cfg.pretrained_lr_mult
    assert wrapper.optimizer.lr * mult == pytest.approx(base.optim_wrapper.optimizer.lr)
    assert wrapper.type == base.optim_wrapper.type
    decay = base.optim_wrapper.paramwise_cfg.get('decay_rate')
    assert wrapper.paramwise_cfg.get('layer_decay_rate') == decay
    if 'ade20k' in name:
        assert config.train_cfg.max_iters == 80000 == config.param_scheduler[-1].end
    else:
        assert config.train_cfg.max_epochs == 12 == config.param_scheduler[-1].end
        assert config.param_scheduler[-1].milestones == [8, 11]
    path = path_of(name)
    assert all(
        line in path.read_text()
        for line in (f'tools/dist_train.sh {path.relative_to(ROOT)} 8', '--from-dense FILE')
    )


def small(name):
    config = load(name)
    family = 'dyswin' if 'dyswin' in name else 'dyconvnext'
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    model = config.model
    model.backbone.update(SMALL[family])
    if config.default_scope == 'mmseg':
        model.decode_head.update(in_channels=CHANNELS, channels=16)
        model.auxiliary_head.update(in_channels=64, channels=16)
        for head in (model.decode_head, model.auxiliary_head, model.data_preprocessor):
            head.pop('norm_cfg', None)
    else:
        model.neck.update(in_channels=CHANNELS, out_channels=32)
        model.rpn_head.update(in_channels=32, feat_channels=32)
    return config


@pytest.mark.parametrize(
    'name',
    [
        'upernet_dyswin_t_ade20k_teacher',
        'upernet_dyconvnext_t_ade20k_teacher',
        'maskrcnn_dyconvnext_t_teacher',
    ],
)
def test_a_dense_checkpoint_is_start_and_teacher(name, tmp_path):
    config = small(name)
    dense = copy.deepcopy(config.model)
    dense.backbone.keep_ratios = None
    checkpoint = str(tmp_path / 'dense.pth')
    torch.save(dict(state_dict=MODELS.build(dense).state_dict()), checkpoint)
    cli.enable_from_dense(config, checkpoint)
    assert config.load_from == config.custom_hooks[0].teacher == checkpoint
    student = MODELS.build(config.model)
    missing, unexpected = student.load_state_dict(
        torch.load(checkpoint)['state_dict'], strict=False
    )
    assert missing and all(is_new(key) for key in missing) and not unexpected
    hook = SpatialSparsityHook(
        **{key: value for key, value in config.custom_hooks[0].items() if key != 'type'}
    )
    hook.attach(student.train(), config)
    assert hook.distillation.map_weights == (0.5,) * 4
    assert hook.distillation.logit_weight == (0.5 if 'upernet' in name else 0)
    if config.optim_wrapper.type == 'AmpOptimWrapper':
        config.optim_wrapper = dict(config.optim_wrapper, type='OptimWrapper')
        config.optim_wrapper.pop('loss_scale', None)
    groups = build_optim_wrapper(student, config.optim_wrapper).optimizer.param_groups
    lr = config.optim_wrapper.optimizer.lr
    assert groups[-1]['lr'] == pytest.approx(lr)  # the new parts come last
    assert max(
        group['lr']
        for group in groups
        if not any(
            parameter is new
            for key, new in student.named_parameters()
            if is_new(key)
            for parameter in group['params']
        )
    ) == pytest.approx(0.2 * lr)
