"""One clear error each: it names the thing, its value and the rule."""

import pytest
import torch

from dynsp_mm import DynamicConvNeXt, DynamicSwin, DynamicSwinV2


@pytest.fixture(params=[DynamicSwin, DynamicSwinV2, DynamicConvNeXt])
def cls(request):
    return request.param


@pytest.mark.parametrize(
    'ratios,text',
    [
        (
            (0.7, 1.5, 0.3),
            r'keep_ratios=\(0.7, 1.5, 0.3\): each ratio must lie in \(0, 1\]; '
            r'got 1.5 at position 1',
        ),
        (
            (0.7, 1.5),
            r'keep_ratios=\(0.7, 1.5\): each ratio must lie in \(0, 1\]; '
            r'got 1.5 at position 1',
        ),
        ((0.7, 0.5, 0.0), r'got 0.0 at position 2'),
        ((0.7, float('nan'), 0.3), r'got nan at position 1'),
        ((0.7, '0.5', 0.3), r"got '0.5' at position 1"),
        ((0.7, True, 0.3), r'got True at position 1'),
        (
            (0.7, 0.5),
            r'keep_ratios=\(0.7, 0.5\): needs one ratio for each of the 3 predictors; got 2',
        ),
        ((), r'keep_ratios=\(\): needs one ratio'),
        ((0.5, 0.7, 0.3), r'must not increase .* got 0.7 after 0.5 at position 1'),
        (0.4000001, r'keep_ratios=0.4000001: one number r'),
        (0.4, r'keep_ratios=0.4: one number r .* must lie in \(0.4, 1\]'),
        (1.2, r'keep_ratios=1.2'),
        (-0.5, r'keep_ratios=-0.5'),
        ('0.7', r"keep_ratios='0.7': must be None, a number or a tuple"),
        (True, r'keep_ratios=True: must be None, a number or a tuple'),
    ],
)
def test_keep_ratios(cls, ratios, text):
    with pytest.raises(ValueError, match=text):
        cls(keep_ratios=ratios)


@pytest.mark.parametrize(
    'kwargs,text',
    [
        (dict(prune_blocks=(1, 2, 30)), r'prune_blocks=\(1, 2, 30\): block 30 is beyond'),
        (dict(prune_blocks=(3, 2, 1)), r'block indices must ascend'),
        (dict(prune_blocks=(1, 2.5, 3)), r'must be a tuple of block indices'),
        (dict(prune_blocks=()), r'must be a tuple of block indices'),
        (dict(prune_stage=0), r'prune_blocks=\(1, 2, 3\): block [23] is beyond'),
        (dict(prune_stage=4), r'prune_stage=4: must be the index of a stage, 0 .. 3'),
        (dict(selection='best'), r"selection type='best': must be 'topk', 'threshold' or 'random'"),
        (dict(mixing='both'), r"mixing='both': must be one of two_stream, merged"),
        (dict(selection=dict(type='threshold', threshold=2)), r'threshold=2: must be a number in'),
        (dict(arch='vast'), r"arch='vast': must be one of"),
        (dict(arch=dict(depths=(1, 2))), r'arch=.*a dict needs'),
        (dict(out_indices=(0, 4)), r'out_indices=\(0, 4\): stage 4 does not exist'),
        (dict(frozen_stages=7), r'frozen_stages=7: must lie in'),
        (dict(out_indices=None), r'out_indices=None: must be a stage index'),
        (dict(drop_path_rate=1.5), r'drop_path_rate=1.5: must be a number in \[0, 1\)'),
        (dict(in_channels=0), r'in_channels=0: must be a whole number >= 1'),
    ],
)
def test_arguments(cls, kwargs, text):
    with pytest.raises(ValueError, match=text):
        cls(**{'keep_ratios': 0.7, **kwargs})


@pytest.mark.parametrize(
    'kwargs,text',
    [
        (dict(arch='tiny', embed_dims=96), 'give either arch or embed_dims'),
        (dict(strides=(2, 2, 2, 2)), r'strides=\(2, 2, 2, 2\)'),
        (dict(stage_cfgs=dict(blocks=3)), 'stage_cfgs: unknown keys blocks'),
        (dict(stage_cfgs=[dict()] * 3), 'stage_cfgs has 3 entries'),
        (dict(stage_cfgs=dict(block_cfgs=[{}])), 'block_cfgs has 1 entries: stage 0 has 2 blocks'),
        (dict(patch_size=0), 'patch_size=0: must be a whole number >= 1'),
        (dict(window_size=0), 'window_size=0: must be a whole number >= 1'),
        (dict(window_size=(7, 7)), r'window_size=\(7, 7\): needs one for each of the 4 stages'),
        (dict(embed_dims=30), 'num_heads=3'),
        (
            dict(pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
            "pretrained='a.pth': give either",
        ),
    ],
)
def test_swin_arguments(kwargs, text):
    if 'embed_dims' in kwargs and 'arch' not in kwargs:
        kwargs = dict(embed_dims=32, num_heads=(3, 6, 12, 24))
    with pytest.raises(ValueError, match=text):
        DynamicSwin(**kwargs)


def test_convnext_norm():
    with pytest.raises(ValueError, match="norm_cfg={'type': 'BN'}"):
        DynamicConvNeXt(norm_cfg=dict(type='BN'))
    with pytest.raises(ValueError, match='norm_cfg=None'):
        DynamicConvNeXt(norm_cfg=None)


@pytest.mark.parametrize(
    'shape,text',
    [
        ((1, 2, 64, 64), r'input shape \(1, 2, 64, 64\): must be \(B, 3, H, W\)'),
        ((3, 64, 64), r'must be \(B, 3, H, W\)'),
        ((1, 3, 64, 0), r'input shape \(1, 3, 64, 0\): each side must have at least \d+ pixels'),
        ((0, 3, 64, 64), r'input shape \(0, 3, 64, 64\): the batch is empty'),
    ],
)
@pytest.mark.parametrize('mode', [True, False])
def test_images(cls, shape, text, mode):
    model = cls('tiny', keep_ratios=0.7).train(mode)
    with pytest.raises(ValueError, match=cls.__name__ + '.*' + text):
        model(torch.zeros(shape))
