"""What benchmarks/SWAP_MATRIX.md says of every config, on ten that stand for the rest."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling import swap_check
from dynsp_mm.tooling.swap_check import SwapError, check_backbone, check_model, input_size

ROOT = Path(__file__).parents[2]
CONFIGS = {
    # mmdet: plain, with checkpointing and converted weights, instance and panoptic masks, ConvNeXt
    # with layer decay, window 12.
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py': (800, 1344),
    'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py': (800, 1344),
    'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py': (800, 1344),
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py': (
        800,
        1344,
    ),
    # mmseg: window 12 of 384 px, ConvNeXt with layer decay.
    'mmseg::swin/swin-base-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512.py': (
        512,
        512,
    ),
    'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py': (512, 512),
    # mmpretrain: 384 px, in21k, ConvNeXt-V2.
    'mmpretrain::swin_transformer/swin-small_16xb64_in1k.py': (224, 224),
    'mmpretrain::swin_transformer/swin-base_16xb64_in1k-384px.py': (384, 384),
    'mmpretrain::convnext/convnext-base_32xb128_in21k.py': (224, 224),
    'mmpretrain::convnext_v2/convnext-v2-atto_32xb32_in1k.py': (224, 224),
}
TRAINED = [name for name in CONFIGS if 'swin-l' not in name and 'base' not in name]


@pytest.fixture(params=CONFIGS)
def config(request):
    return cli.load_config(request.param)


def test_size_of_images():
    for name, size in CONFIGS.items():
        assert input_size(cli.load_config(name)) == size
    cfg = Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(dataset=dict(pipeline=[])),
            model=dict(backbone=dict(img_size=192)),
        )
    )
    with pytest.raises(cli.UserError, match='no transform of the test pipeline names a size'):
        input_size(cfg)
    cfg.pop('test_dataloader')
    assert input_size(cfg) == (192, 192)


def test_backbone(config):
    before = config.copy()
    # mmpretrain's Swin takes no map that is smaller than a window.
    size = (64, 96) if 'mmpretrain' not in config.filename else input_size(config)
    result = check_backbone(config, size)
    assert result['new'] > 0 and result['error'] <= 1e-5
    count = size[0] // 16 * size[1] // 16
    assert result['keep_ratios'] == pytest.approx([int(count * r) / count for r in (0.7, 0.5, 0.3)])
    assert config._cfg_dict == before._cfg_dict


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINED)
def test_model_trains_a_step(name):
    result = check_model(cli.load_config(name), (64, 96) if 'mmpretrain' in name else (128, 160))
    assert result['loss'] > 0 and result['new'] > 0
    decay = 'LayerDecay' in result['optimizer'] or 'LearningRateDecay' in result['optimizer']
    assert decay == ('convnext' in name and 'mmpretrain' not in name)


SMALL = 'mmpretrain::convnext_v2/convnext-v2-atto_32xb32_in1k.py'


def on_load(change):
    """Stands for load_dense; ``change`` may alter the model or the weights."""
    load = swap_check.load_dense

    def load_dense(model, weights):
        weights = dict(weights)
        change(model, weights, before=True)
        new = load(model, weights)
        with torch.no_grad():
            change(model, weights, before=False)
        return new

    return load_dense


def lose(model, weights, before):
    weights.pop('stages.1.0.norm.bias', None)


def add(model, weights, before):
    weights['stages.9.bias'] = torch.ones(1)


def alter(model, weights, before):
    model.stages[1][0].norm.bias.data += 0.01


def break_fast_path(model, weights, before):
    if not before and model.keep_ratios:
        model.stages[2][-1].fast_path.linear.bias.fill_(float('inf'))


def drop_a_stage(model, weights, before):
    if model.keep_ratios:
        model.out_indices = ()


@pytest.mark.parametrize(
    'change,text',
    [
        (lose, r"dense weights lack: \['stages.1.0.norm.bias'\]"),
        (add, r"dense names without a place: \['stages.9.bias'\]"),
        (alter, 'keep_ratios=None the outputs differ'),
        (break_fast_path, 'sparse outputs are not finite'),
        (drop_a_stage, r'sparse outputs have shapes \[\]'),
    ],
)
def test_a_broken_backbone_is_found(change, text, monkeypatch):
    monkeypatch.setattr(swap_check, 'load_dense', on_load(change))
    with pytest.raises(SwapError, match=text):
        check_backbone(cli.load_config(SMALL), (64, 64))


def test_a_wrong_number_of_slow_positions_is_found(monkeypatch):
    backbone = swap_check.sparse_backbone
    monkeypatch.setattr(
        swap_check,
        'sparse_backbone',
        lambda cfg: dict(backbone(cfg), selection=dict(type='threshold', threshold=0.999)),
    )
    with pytest.raises(SwapError, match='0 of 16 positions are slow, the keep ratio is 0.7'):
        check_backbone(cli.load_config(SMALL), (64, 64))


def test_no_parameter_hides_behind_a_zero():
    model = torch.nn.ModuleList([torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)])
    torch.nn.init.zeros_(model[1].weight)
    swap_check.randomise(model)
    assert all(parameter.all() for parameter in model.parameters())


class NoHook:
    """Stands for SpatialSparsityHook."""

    def __init__(self, action):
        self.action = action

    def attach(self, model):
        self.action(model)


def scale_gradient(value):
    return lambda model: model.backbone.token_predictors[0].norm.weight.register_hook(
        lambda gradient: gradient * value
    )


@pytest.mark.parametrize(
    'action',
    [
        lambda model: model.backbone.token_predictors.eval(),
        scale_gradient(0.0),
        scale_gradient(float('nan')),
    ],
    ids=['none', 'zero', 'nan'],
)
def test_a_part_without_gradient_is_found(action, monkeypatch):
    hook = swap_check.SpatialSparsityHook

    def attach(model):
        hook().attach(model)
        action(model)

    monkeypatch.setattr(swap_check, 'SpatialSparsityHook', lambda: NoHook(attach))
    with pytest.raises(SwapError, match=r'no gradient for ..backbone.token_predictors.0.norm'):
        check_model(cli.load_config(SMALL), (64, 64))


def test_a_parameter_without_optimizer_is_found(monkeypatch):
    build = swap_check.build_optim_wrapper

    def build_less(model, cfg):
        wrapper = build(model, cfg)
        del wrapper.optimizer.param_groups[0]['params'][0]
        return wrapper

    monkeypatch.setattr(swap_check, 'build_optim_wrapper', build_less)
    with pytest.raises(SwapError, match="parameters without an optimizer: .'backbone"):
        check_model(cli.load_config(SMALL), (64, 64))
