"""State dicts of every source under our names; nothing is lost on the way."""

import pytest
import torch
from golden import release

import dynsp_mm
from dynsp_mm import DynamicConvNeXt, DynamicSwin, DynamicSwinV2, STViTSwin
from dynsp_mm.checkpoints import (
    backbone_config,
    convert_state_dict,
    find_source,
    fit_state_dict,
    unwrap,
)
from dynsp_mm.checkpoints.sources import known_sources

NEW = ('score_predictor', 'fastmlp', 'fast_path')
SWIN = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))
SWIN_V2 = dict(SWIN, extra_norm_every_n_blocks=3)
CONVNEXT = dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128))
ALL = (0, 1, 2, 3)


def dense(name):
    return {k: v for k, v in release(name).items() if not any(part in k for part in NEW)}


# What a file may hold -> the source that it is recognised as, and the backbone that takes it.
SOURCES = {
    'dynamic_swin': ('DynamicSwin release', 'DynamicSwin', lambda: release('dynamic_swin_eval')),
    'dynamic_convnext': (
        'DynamicConvNeXt release',
        'DynamicConvNeXt',
        lambda: release('dynamic_convnext_eval'),
    ),
    'official_swin': ('official Swin', 'DynamicSwin', lambda: dense('dynamic_swin_eval')),
    'official_convnext': (
        'official ConvNeXt',
        'DynamicConvNeXt',
        lambda: dense('dynamic_convnext_eval'),
    ),
    'stvit_detection': ('STViT-R release', 'STViTSwin', lambda: release('stvit_dense')),
    'stvit_token2': ('STViT-R release', 'STViTSwin', lambda: release('stvit_cls-0')),
    'stvit_cls': ('STViT-R release', 'STViTSwin', lambda: release('stvit_cls-1')),
    'openmmlab_swin': (
        'OpenMMLab Swin',
        'DynamicSwin',
        lambda: DynamicSwin(**SWIN, out_indices=ALL).state_dict(),
    ),
    'openmmlab_swin_v2': (
        'OpenMMLab Swin',
        'DynamicSwinV2',
        lambda: DynamicSwinV2(SWIN_V2, out_indices=ALL, qkv_bias=False).state_dict(),
    ),
    'openmmlab_convnext': (
        'OpenMMLab ConvNeXt',
        'DynamicConvNeXt',
        lambda: DynamicConvNeXt(
            arch=CONVNEXT, out_indices=ALL, gap_before_final_norm=False
        ).state_dict(),
    ),
    'own_swin': (
        'OpenMMLab Swin',
        'DynamicSwin',
        lambda: DynamicSwin(**SWIN, keep_ratios=0.7).state_dict(),
    ),
    'own_swin_v2': (
        'OpenMMLab Swin',
        'DynamicSwinV2',
        lambda: DynamicSwinV2(SWIN_V2, keep_ratios=0.7).state_dict(),
    ),
    'own_token2': (
        'OpenMMLab Swin',
        'STViTSwin',
        lambda: STViTSwin(arch=SWIN, form='classification', semantic_token2=True).state_dict(),
    ),
    'window_5_and_positions': (
        'OpenMMLab Swin',
        'DynamicSwin',
        lambda: DynamicSwin(
            **SWIN, window_size=5, use_abs_pos_embed=True, pretrain_img_size=96
        ).state_dict(),
    ),
    'own_stvit': ('OpenMMLab Swin', 'STViTSwin', lambda: STViTSwin(**SWIN).state_dict()),
    'own_convnext_v2': (
        'OpenMMLab ConvNeXt',
        'DynamicConvNeXt',
        lambda: DynamicConvNeXt(
            arch=CONVNEXT, keep_ratios=0.7, use_grn=True, layer_scale_init_value=0.0
        ).state_dict(),
    ),
}


@pytest.fixture(params=SOURCES)
def source(request):
    name, kind, make = SOURCES[request.param]
    return request.param, name, kind, make()


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_every_key_is_accounted_for(source, prefix):
    which, name, kind, state_dict = source
    others = {
        'neck.convs.0.weight': torch.ones(2),
        'roi_head.bbox_head.0.fc_cls.bias': torch.ones(1),
    }
    whole = {prefix + k: v for k, v in state_dict.items()}
    if prefix:
        whole.update(others)
    result = convert_state_dict(whole)
    assert result.source.name == name
    assert {old for old, _ in result.mapped} | {old for old, _ in result.dropped} == set(whole)
    assert len(result.mapped) + len(result.dropped) == len(whole)
    assert {new for _, new in result.mapped} == set(result.state_dict)
    for old, reason in result.dropped:
        assert reason and old.endswith(('attn_mask', 'relative_position_index'))
    if prefix:  # the detector's other parts stay as they are
        assert all(torch.equal(result.state_dict[k], v) for k, v in others.items())
    # Each tensor has a storage of its own: safetensors refuses shared ones.
    pointers = [v.data_ptr() for v in result.state_dict.values()]
    assert len(set(pointers)) == len(pointers)


def test_the_backbone_that_takes_it(source):
    which, name, kind, state_dict = source
    converted = convert_state_dict(state_dict).backbone
    config = backbone_config(converted)
    assert config['type'] == kind
    cls = getattr(dynsp_mm, kind)
    fit = fit_state_dict(converted, cls(**{k: v for k, v in config.items() if k != 'type'}))
    assert fit.unused == [] and fit.missing == []
    # Only a dense file leaves the sparse parts to start new.
    dense_file = which.startswith(('official', 'openmmlab', 'window'))
    assert bool(fit.new) == dense_file
    assert all(k.startswith('token_predictors.') or '.fast_' in k for k in fit.new)


def test_values_come_through():
    """Two rules that change tensors, and one that looks at the keys beside."""
    swin = release('dynamic_swin_eval')
    got = convert_state_dict(swin).state_dict
    old = swin['layers.0.downsample.reduction.weight']
    width = old.shape[1] // 4
    new = got['backbone.stages.0.downsample.reduction.weight']
    # Top right neighbour: third quarter in the official order, second of each four in ours.
    assert torch.equal(new[:, 1::4], old[:, 2 * width : 3 * width])
    stvit = release('stvit_dense')
    got = convert_state_dict(stvit).state_dict
    for old, new in (
        ('2.blocks.0.attn.proj', '2.blocks.0.attn.w_msa.proj'),
        ('2.blocks.7.attn.proj', '2.blocks.7.attn.proj'),
        ('2.blocks.11.attn.kv', '2.blocks.11.attn.kv'),
    ):
        assert torch.equal(got[f'backbone.stages.{new}.weight'], stvit[f'layers.{old}.weight'])


def test_small_rules():
    """Buffers of OpenMMLab's files, names of old classifiers, positions of official Swin."""
    state_dict = DynamicSwin(**SWIN).state_dict()
    block = 'stages.1.blocks.0.attn.w_msa.'
    extra = {
        block + 'relative_position_index': torch.zeros(1),
        block + 'attn_mask': torch.zeros(1),
        'stages.1.blocks.0.attn_mask': torch.zeros(1),  # as mmseg's converter leaves it
        'mask_token': torch.zeros(1),
        'norm.weight': state_dict.pop('norm3.weight'),
    }
    result = convert_state_dict({**state_dict, **extra})
    assert {old for old, _ in result.dropped} == set(extra) - {'norm.weight'}
    assert torch.equal(result.backbone['norm3.weight'], extra['norm.weight'])
    embedding = torch.randn(1, 4, 8)
    result = convert_state_dict({**dense('dynamic_swin_eval'), 'absolute_pos_embed': embedding})
    assert torch.equal(result.backbone['absolute_pos_embed'], embedding)


def test_names_that_only_the_model_at_hand_has():
    """Other norms than those of the published networks: a file is held against the model."""
    model = DynamicSwin(arch=SWIN, norm_cfg=dict(type='BN1d'))
    weights = model.state_dict()
    with pytest.raises(ValueError, match='OpenMMLab Swin: 3 unknown key.*norm3.running_mean'):
        convert_state_dict(weights)
    assert set(convert_state_dict(weights, model=model).backbone) == set(weights)


def test_the_source_that_knows_most_keys_decides():
    """Releases hold all that official files do: their order in the register must not matter."""
    for name, (source, _, make) in SOURCES.items():
        found = [s for s in known_sources() if s.recognises(make())]
        assert find_source(make()).name == source, name
        lengths = [len(s.signature) for s in found]
        assert lengths.count(max(lengths)) == 1, name
    assert {source for source, _, _ in SOURCES.values()} <= {s.name for s in known_sources()}


def test_bad_state_dicts():
    state_dict = release('dynamic_convnext_eval')
    with pytest.raises(
        ValueError,
        match=r'DynamicConvNeXt release: 1 unknown key\(s\): '
        'stages.0.0.surprise',
    ):
        convert_state_dict({**state_dict, 'stages.0.0.surprise': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'2 unknown key\(s\): backbone.x'):
        convert_state_dict(
            {
                **{'backbone.' + k: v for k, v in state_dict.items()},
                'backbone.x': torch.zeros(1),
                'backbone.y': torch.zeros(1),
            }
        )
    # Another family's keys with OpenMMLab's names.
    with pytest.raises(ValueError, match='unknown key.*temperature'):
        convert_state_dict(
            {
                **DynamicSwin(**SWIN).state_dict(),
                'stages.0.blocks.0.attn.w_msa.temperature': torch.zeros(1),
            }
        )
    with pytest.raises(ValueError, match='unknown kind of checkpoint .keys such as conv1.weight'):
        convert_state_dict({'conv1.weight': torch.zeros(1)})
    swin = release('dynamic_swin_eval')
    with pytest.raises(ValueError, match='another key was mapped to backbone.norm3.weight'):
        convert_state_dict({**swin, 'norm3.weight': swin['norm.weight']})


def test_unwrap():
    tensors = dict(a=torch.zeros(1))
    for wrapped in (
        tensors,
        dict(state_dict=tensors),
        dict(model=tensors, epoch=1),
        dict(model_ema=tensors),
        {'module.a': tensors['a']},
        dict(ema_state_dict={'module.a': tensors['a'], 'steps': 3}),
    ):
        assert list(unwrap(wrapped)) == ['a']
    both = dict(model=tensors, model_ema=dict(b=torch.zeros(1)))
    assert list(unwrap(both)) == ['a'] and list(unwrap(both, 'model_ema')) == ['b']
    with pytest.raises(ValueError, match="both with and without 'module.'"):
        unwrap({'module.a': tensors['a'], 'a': tensors['a']})
    for bad in (None, [], {}, dict(model={}), dict(epoch=3), dict(model={1: torch.zeros(1)})):
        with pytest.raises(ValueError, match='no state dict'):
            unwrap(bad)
    with pytest.raises(ValueError, match="no entry 'ema'"):
        unwrap(both, 'ema')
    assert find_source(tensors) is None
