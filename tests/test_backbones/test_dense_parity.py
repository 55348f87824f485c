"""With keep_ratios=None the backbones equal the dense classes of the libraries."""

import copy

import mmdet.models  # noqa: F401  registers
import mmpretrain.models  # noqa: F401
import mmseg.models  # noqa: F401
import pytest
import torch
from golden import relative_error
from mmdet.models.backbones import SwinTransformer as DetSwin
from mmpretrain.models.backbones import ConvNeXt
from mmpretrain.models.backbones import SwinTransformer as ClsSwin
from mmseg.models.backbones import SwinTransformer as SegSwin

from dynsp_mm import DynamicConvNeXt, DynamicSwin

SIZES = [(224, 224), (256, 309), pytest.param((800, 1216), marks=pytest.mark.slow)]
WIDTHS = dict(embed_dims=32, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))
ALL = (0, 1, 2, 3)


def randomise(model):
    """Default initial values (zero biases, unit norms) would hide swapped parameters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.eval()  # mmdet's returns None
    return model


def check(dense, ours, image, exact_keys=True):
    dense = randomise(dense)
    keys = ours.load_state_dict(copy.deepcopy(dense.state_dict()), strict=exact_keys)
    assert not keys.missing_keys and not keys.unexpected_keys
    ours.eval()
    with torch.no_grad():
        expected, got = dense(image), ours(image)
    assert isinstance(got, tuple) and len(got) == len(expected)
    for a, b in zip(got, expected):
        assert a.is_contiguous()
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('library', [DetSwin, SegSwin])
def test_swin_of_mmdet_and_mmseg(library, size):
    args = dict(WIDTHS, out_indices=ALL)
    check(library(**args), DynamicSwin(**args), torch.randn(1, 3, *size))


@pytest.mark.parametrize('size', SIZES)
def test_swin_of_mmpretrain(size):
    args = dict(arch=dict(WIDTHS), out_indices=ALL, pad_small_map=min(size) % 224 != 0)
    check(ClsSwin(**args), DynamicSwin(**args), torch.randn(1, 3, *size))


@pytest.mark.parametrize('pad_small_map', [False, True])
def test_shift_where_map_equals_window(pad_small_map):
    # Stage 4 of a 224 px image is one window: here the libraries differ.
    args = dict(arch=dict(WIDTHS), out_indices=ALL)
    image = torch.randn(2, 3, 224, 224)
    check(
        ClsSwin(pad_small_map=pad_small_map, **args),
        DynamicSwin(pad_small_map=pad_small_map, **args),
        image,
    )
    check(DetSwin(**WIDTHS), DynamicSwin(out_indices=ALL, **WIDTHS), image)
    outputs = []
    for value in (False, True):
        torch.manual_seed(1)
        model = randomise(DynamicSwin(pad_small_map=value, **args))
        with torch.no_grad():
            outputs.append(model(image))
    assert relative_error(outputs[0][2], outputs[1][2]) == 0
    assert relative_error(outputs[0][3], outputs[1][3]) > 1e-3


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('gap', [False, True])
def test_convnext(size, gap):
    args = dict(
        arch=dict(depths=[2, 2, 4, 2], channels=[32, 64, 128, 256]),
        drop_path_rate=0.1,
        layer_scale_init_value=1.0,
        gap_before_final_norm=gap,
    )
    check(
        ConvNeXt(out_indices=list(ALL), **args),
        DynamicConvNeXt(out_indices=ALL, **args),
        torch.randn(1, 3, *size),
    )


@pytest.mark.parametrize(
    'extra',
    [
        dict(use_grn=True, layer_scale_init_value=0.0),
        dict(linear_pw_conv=False),
        dict(norm_cfg=dict(type='LN2d', eps=1e-3)),
        dict(stem_patch_size=2, in_channels=1),
    ],
)
def test_convnext_variants(extra):
    args = dict(
        arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]),
        gap_before_final_norm=False,
        **extra,
    )
    image = torch.randn(2, args.get('in_channels', 3), 96, 73)
    check(ConvNeXt(out_indices=list(ALL), **args), DynamicConvNeXt(out_indices=ALL, **args), image)


@pytest.mark.parametrize(
    'extra',
    [
        dict(use_abs_pos_embed=True),
        dict(window_size=5, qk_scale=0.3),
        dict(patch_norm=False, qkv_bias=False, mlp_ratio=2),
        dict(norm_cfg=dict(type='LN', eps=1e-3)),
        dict(with_cp=True, drop_rate=0.1, attn_drop_rate=0.1),
    ],
)
def test_swin_variants_of_mmdet(extra):
    args = dict(WIDTHS, out_indices=(1, 3), pretrain_img_size=96, **extra)
    check(DetSwin(**args), DynamicSwin(**args), torch.randn(2, 3, 96, 96))


@pytest.mark.parametrize(
    'extra',
    [
        dict(use_abs_pos_embed=True, img_size=64),
        dict(out_after_downsample=True),
        dict(stage_cfgs=dict(downsample_cfg=dict(kernel_size=3, padding='same'))),
        dict(patch_size=(4, 2)),
        dict(stage_cfgs=dict(block_cfgs=dict(window_size=4))),
        dict(norm_cfg=None),
        dict(patch_cfg=dict(norm_cfg=None)),
    ],
)
def test_swin_variants_of_mmpretrain(extra):
    args = dict(arch=dict(WIDTHS), pad_small_map=True, out_indices=(1, 3), **extra)
    check(ClsSwin(**args), DynamicSwin(**args), torch.randn(2, 3, 100, 76))


@pytest.mark.parametrize('ratios', [1.0, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize('family', ['swin', 'convnext'])
def test_keeping_everything_equals_dense(family, ratios):
    if family == 'swin':

        def build(**kw):
            return DynamicSwin(arch=dict(WIDTHS), out_indices=ALL, **kw)
    else:

        def build(**kw):
            return DynamicConvNeXt(
                arch=dict(depths=[1, 1, 4, 1], channels=[16, 32, 64, 128]),
                out_indices=ALL,
                gap_before_final_norm=False,
                **kw,
            )

    dense = randomise(build())
    ours = build(keep_ratios=ratios)
    assert ours.keep_ratios == (None if ratios == 1.0 else ratios)
    missing = ours.load_state_dict(dense.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all('token_predictors' in k or 'fast_' in k for k in missing.missing_keys)
    image = torch.randn(2, 3, 90, 130)
    with torch.no_grad():
        for a, b in zip(ours.eval()(image), dense(image)):
            assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize('library', [DetSwin, ClsSwin])
def test_frozen_stages_of_swin(library):
    """The same parameters stay trainable as in the library's own class."""
    args = dict(WIDTHS) if library is DetSwin else dict(arch=dict(WIDTHS))
    for frozen in (-1, 0, 1, 2, 3):
        dense = library(out_indices=ALL, frozen_stages=frozen, **args)
        ours = DynamicSwin(out_indices=ALL, frozen_stages=frozen, **args)
        dense.train(), ours.train()
        assert {n for n, p in ours.named_parameters() if p.requires_grad} == {
            n for n, p in dense.named_parameters() if p.requires_grad
        }


def test_frozen_stages_of_convnext():
    args = dict(arch=dict(depths=[1, 1, 4, 1], channels=[16, 32, 64, 128]), out_indices=[0, 3])
    for frozen in (0, 1, 3, 4):
        dense, ours = (
            ConvNeXt(frozen_stages=frozen, **args),
            DynamicConvNeXt(frozen_stages=frozen, **args),
        )
        dense.train(), ours.train()
        assert {n for n, p in ours.named_parameters() if p.requires_grad} == {
            n for n, p in dense.named_parameters() if p.requires_grad
        }


@pytest.mark.parametrize('pair', ['swin', 'convnext'])
def test_layer_depth(pair):
    """Dense parameters have the library's depths; new ones lie at their block or last."""
    if pair == 'swin':
        dense, ours = (
            ClsSwin('tiny', out_indices=ALL),
            DynamicSwin('tiny', keep_ratios=0.7, out_indices=ALL),
        )
    else:
        dense, ours = (
            ConvNeXt('tiny', out_indices=list(ALL)),
            DynamicConvNeXt('tiny', keep_ratios=0.7, out_indices=ALL),
        )
    for name, _ in dense.named_parameters():
        assert ours.get_layer_depth('backbone.' + name, 'backbone.') == dense.get_layer_depth(
            'backbone.' + name, 'backbone.'
        ), name
    last = ours.get_layer_depth('head.fc.weight', 'backbone.')
    for name, _ in ours.named_parameters():
        depth = ours.get_layer_depth('backbone.' + name, 'backbone.')
        assert 0 <= depth[0] < depth[1]
        if name.startswith('token_predictors'):
            assert depth == last
