"""Backbones without configs."""

import pytest
import torch
from safetensors.torch import save_file

import dynsp_mm
from dynsp_mm import families

CARDS = families.all_families()


@pytest.mark.parametrize('card', CARDS, ids=lambda card: card.name)
def test_maps_of_all_stages(card):
    sparse = dict(keep_ratios=0.7) if card.spatial else {}
    backbone = dynsp_mm.create_backbone(f'{card.name}_t', **sparse).eval()
    assert type(backbone).__name__ == card.cls and backbone.is_init
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(out.shape) for out in maps] == [
        (1, 96 * 2**i, 64 // stride, 96 // stride) for i, stride in enumerate(card.strides)
    ]
    if sparse:
        assert backbone.keep_ratios == (0.7, 0.5, 0.3)


def test_sizes_and_arguments():
    backbone = dynsp_mm.create_backbone(
        'dynamic_swin_b', keep_ratios=(0.9, 0.5, 0.5), out_indices=(3,), window_size=8
    )
    assert backbone.widths[0] == 128 and backbone.out_indices == (3,)
    assert dynsp_mm.create_backbone('dynamic_convnext_atto').channels == (40, 80, 160, 320)


def test_weights_of_a_dense_checkpoint(tmp_path):
    dense = dynsp_mm.create_backbone('dynamic_swin_t')
    path = str(tmp_path / 'dense.safetensors')
    save_file(dense.state_dict(), path)
    sparse = dynsp_mm.create_backbone('dynamic_swin_t', keep_ratios=0.7, checkpoint=path)
    loaded = sparse.state_dict()
    assert len(loaded) > len(dense.state_dict())
    for key, value in dense.state_dict().items():
        assert torch.equal(loaded[key], value)


@pytest.mark.parametrize(
    'name,kwargs,text',
    [
        (
            'swin_t',
            {},
            "name='swin_t': must be one of dynamic_swin, dynamic_swin_v2, dynamic_convnext",
        ),
        ('dynamic_swin', {}, "name='dynamic_swin': must be one of"),
        (7, {}, 'name=7: must be one of'),
        ('dynamic_swin_q', {}, "name='dynamic_swin_q': the sizes of dynamic_swin are tiny, small"),
        (
            'dynamic_swin_xl',
            {},
            "name='dynamic_swin_xl': the sizes of dynamic_swin are tiny, small",
        ),
        ('dynamic_swin_t', dict(keep_ratios=1.5), 'keep_ratios=1.5'),
        (
            'dynamic_swin_t',
            dict(init_cfg='a.pth'),
            "init_cfg='a.pth': must be None, a dict such as",
        ),
        (
            'dynamic_swin_t',
            dict(arch='base'),
            "arch='base': the size is part of name='dynamic_swin_t'",
        ),
        ('dynamic_convnext_t', dict(foo=1), 'DynamicConvNeXt: unknown argument.s. foo=1'),
        ('stvit_swin_t', dict(keep_ratios=0.7), 'keep_ratios=0.7: STViTSwin selects no positions'),
        ('dynamic_swin_t', dict(checkpoint='no.pth'), "^checkpoint='no.pth' cannot be loaded"),
    ],
)
def test_mistakes(name, kwargs, text):
    with pytest.raises(ValueError, match=text):
        dynsp_mm.create_backbone(name, **kwargs)


def test_checkpoint_of_another_network(tmp_path):
    path = str(tmp_path / 'small.safetensors')
    save_file(dynsp_mm.create_backbone('dynamic_swin_s').state_dict(), path)
    with pytest.raises(ValueError, match=r'^checkpoint=.*depths .*18.*here .*6') as error:
        dynsp_mm.create_backbone('dynamic_swin_t', checkpoint=path)
    assert 'init_cfg' not in str(error.value)
