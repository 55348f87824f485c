"""A config whose dense counterpart a library has is that one, swapped, and nothing else."""

import pytest
from config_files import load, plain
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from dynsp_mm.configuration.swap import sparsify
from dynsp_mm.tooling import options as cli

BASES = {
    'retinanet_dyswin_t': 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'dino_dyswin_l': 'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py',
    'rtmdet_dyswin_b': 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py',
    **{
        f'mask2former_dyswin_{size}_ade20k': 'mmseg::mask2former/mask2former_swin-'
        f'{size}_8xb2-160k_ade20k-512x512.py'
        for size in 'ts'
    },
    'mask2former_dyswin_b_ade20k': 'mmseg::mask2former/mask2former_swin-b-in1k-384x384-pre_8xb2-'
    '160k_ade20k-640x640.py',
    **{
        f'cascade_maskrcnn_dyconvnext_{size}': 'mmdet::convnext/cascade-mask-rcnn_convnext-'
        f'{size}-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
        for size in 'ts'
    },
    **{
        f'upernet_dyswin_{size[0]}_ade20k': f'mmseg::swin/swin-{size}-patch4-window7-in1k-pre_'
        'upernet_8xb2-160k_ade20k-512x512.py'
        for size in ('tiny', 'small', 'base')
    },
    **{
        f'upernet_dyconvnext_{size[0]}_ade20k': f'mmseg::convnext/convnext-{size}_upernet_8xb2-'
        'amp-160k_ade20k-512x512.py'
        for size in ('tiny', 'small', 'base')
    },
}


@pytest.mark.parametrize('name', BASES)
def test_only_the_backbone_and_its_hook_are_new(name):
    expected = cli.load_config(BASES[name])
    sparsify(expected, 0.7)
    expected.custom_hooks[-1].keep_ratio_weight = 10.0
    config = plain(load(name))
    expected, imports = plain(expected), config['custom_imports']['imports']
    # mmpretrain.models was there for the dense ConvNeXt.
    assert imports == [
        module for module in expected['custom_imports']['imports'] if module != 'mmpretrain.models'
    ]
    expected['custom_imports']['imports'] = imports
    assert config == expected


class WithBackbone(nn.Module):
    """What a layer-decay constructor looks at of a detector or segmentor."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


@pytest.mark.parametrize('name', ['cascade_maskrcnn_dyconvnext_t', 'upernet_dyconvnext_t_ade20k'])
def test_rates_of_the_new_parts_under_layer_decay(name):
    """A fast path learns at the rate of its block, predictors, which start new, at the full one."""
    config = load(name)
    pytest.importorskip(f'{config.default_scope}.engine')
    config.model.backbone.init_cfg = None
    config.optim_wrapper.type = 'OptimWrapper'
    cli.enable_amp(config, requested=False)
    wrapper = config.optim_wrapper
    wrapper.constructor = f'{config.default_scope}.{wrapper.constructor}'
    model = WithBackbone(MODELS.build(config.model.backbone))
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    rates = {name: group['lr'] for group in groups for name in group['param_names']}
    assert set(rates) == {key for key, _ in model.named_parameters()}
    full = wrapper.optimizer.lr
    fast = [key for key in rates if '.fast_' in key]
    assert fast and min(rates.values()) < full
    for key in fast:
        block = key.split('.fast_')[0]
        assert rates[key] == rates[f'{block}.pointwise_conv1.weight'] < full
    assert all(rates[key] == full for key in rates if 'token_predictors' in key)
