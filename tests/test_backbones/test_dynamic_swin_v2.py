"""DynamicSwinV2 beside mmpretrain's SwinTransformerV2, and what is its own.

What holds for every sparse backbone is in ``test_sparse``.
"""

import math

import pytest
import torch
from golden import relative_error
from mmengine.registry import init_default_scope
from mmpretrain.models.backbones import SwinTransformerV2
from mmpretrain.registry import MODELS
from streams import run_block
from test_dense_parity import ALL, check, randomise

from dynsp_mm import Decision, DynamicSwin, DynamicSwinV2, record_decisions
from dynsp_mm.analysis.flops import count_macs
from dynsp_mm.checkpoints import fit_state_dict, load_from_anywhere
from dynsp_mm.configuration.swap import sparsify
from dynsp_mm.layers import SwinBlockV2
from dynsp_mm.layers.window_attention_v2 import WindowAttentionV2
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling import runs

WIDTHS = dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4))
ARCH = dict(WIDTHS, extra_norm_every_n_blocks=0)


def pair(**kwargs):
    return (
        cls(**{'arch': dict(ARCH), 'out_indices': ALL, **kwargs})
        for cls in (SwinTransformerV2, DynamicSwinV2)
    )


@pytest.mark.parametrize('size', [(256, 256), (250, 309)])
@pytest.mark.parametrize(
    'windows',
    [
        dict(),
        dict(window_size=[16, 16, 16, 8]),
        dict(window_size=(6, 7, 5, 3), pretrained_window_sizes=[12, 12, 0, 6]),
    ],
)
def test_equals_the_dense_network(size, windows):
    # Without padding, mmpretrain takes no map smaller than its window.
    pad = size != (256, 256)
    check(*pair(pad_small_map=pad, **windows), torch.randn(1 + pad, 3, *size))


@pytest.mark.parametrize(
    'extra',
    [
        dict(arch=dict(ARCH, extra_norm_every_n_blocks=2)),
        dict(use_abs_pos_embed=True, img_size=64),
        dict(norm_cfg=None, patch_size=2, in_channels=1),
        dict(patch_cfg=dict(norm_cfg=None), out_indices=(1, 3)),
        dict(
            stage_cfgs=dict(downsample_cfg=dict(kernel_size=3, padding='same', use_post_norm=True))
        ),
        dict(stage_cfgs=dict(downsample_cfg=dict(bias=True))),  # norm first, as in mmpretrain
        dict(
            stage_cfgs=[
                dict(window_size=5, pretrained_window_size=9),
                {},
                dict(extra_norm_every_n_blocks=3),
                dict(block_cfgs=[dict(ffn_ratio=2)]),
            ]
        ),
        dict(
            stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qkv_bias=False, cpb_mlp_hidden_dims=8)))
        ),
    ],
)
def test_variants(extra):
    image = torch.randn(3, extra.get('in_channels', 3), 100, 76)
    check(*pair(pad_small_map=True, **extra), image)


@pytest.mark.parametrize('arch', SwinTransformerV2.arch_zoo)
def test_named_archs(arch):
    expected = SwinTransformerV2.arch_zoo[arch]
    got = DynamicSwinV2._resolve_arch(arch, {})
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in got.items()} == expected


@pytest.mark.parametrize('every', [0, 2])
def test_extra_norms_end_all_forms(every):
    block = randomise(SwinBlockV2(16, 2, extra_norm=bool(every), fast_path=True))
    if every:
        block.norm3.reset_parameters()
    x, slow = torch.randn(2, 64, 16), torch.arange(0, 128, 2)
    mask = torch.zeros(128).index_fill_(0, slow, 1).view(2, 64, 1)
    scores = torch.zeros(2, 64)
    dense = run_block(block, x, (8, 8)).tokens
    chosen = Decision(scores, (8, 8), 0.5, slow=slow, fast=slow + 1)
    sparse = run_block(block, x, (8, 8), chosen).tokens
    masked = Decision(scores, (8, 8), 0.5, mask=mask)
    streams = run_block(block, x, (8, 8), masked, fast=x)
    for out in (dense, sparse, streams.tokens, streams.fast):
        spread = out.std(-1, unbiased=False)
        assert ((spread - 1).abs().max() < 1e-3) == bool(every)
    # Slow positions are those of the dense block; the forms of the sparse block agree.
    torch.testing.assert_close(sparse.flatten(0, 1)[slow], dense.flatten(0, 1)[slow])
    torch.testing.assert_close(streams.merged(masked), sparse)


def test_gradients_with_extra_norms_and_checkpointing():
    model = randomise(
        DynamicSwinV2(
            dict(ARCH, extra_norm_every_n_blocks=2),
            (0.7, 0.5, 0.3),
            with_cp=True,
            drop_path_rate=0.2,
            out_indices=ALL,
        )
    ).train()
    with torch.no_grad():  # nearly fair coins: both paths are taken
        for predictor in model.token_predictors:
            predictor.head[-1].bias.zero_()
    sum(m.square().mean() for m in model(torch.randn(3, 3, 64, 96))).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_fast_path_starts_small_where_values_are_large():
    """Whatever the stream's amplitude, the start departs gently from the dense network."""
    block = SwinBlockV2(384, 12, fast_path=True)
    block.fast_path.reset_parameters()
    for amplitude in (0.01, 1.0, 100.0):
        update = block.fast_path(amplitude * torch.randn(100, 384))
        assert 0.2 < update.std() < 0.6


def test_keys_of_padding_in_float16():
    """Zero keys have no direction; the epsilon of float32 is zero in float16."""
    prepared = SwinBlockV2(16, 2).attn.w_msa.prepare(
        torch.randn(1, 2, 6, 8).half(), torch.zeros(1, 2, 6, 8).half()
    )
    assert all(x.dtype == torch.float16 and x.isfinite().all() for x in prepared)
    torch.testing.assert_close(
        prepared[0].norm(dim=-1), torch.full((1, 2, 6), 10.0).half(), rtol=0.01, atol=0
    )


def test_frozen_stages():
    """The same parameters stay trainable as in mmpretrain's class."""
    for frozen in (-1, 0, 2, 3):
        dense, ours = pair(frozen_stages=frozen)
        dense.train(), ours.train()
        assert {n for n, p in ours.named_parameters() if p.requires_grad} == {
            n for n, p in dense.named_parameters() if p.requires_grad
        }


def test_layer_depth():
    """As mmpretrain's Swin, but that patch merging goes with the block after it."""
    model = DynamicSwinV2(dict(ARCH), 0.7)
    depths = {
        name: model.get_layer_depth(f'backbone.{name}', 'backbone.')[0]
        for name in (
            'patch_embed.norm.bias',
            'stages.0.blocks.0.norm1.bias',
            'stages.2.downsample.norm.bias',
            'stages.2.blocks.0.norm1.bias',
            'stages.2.blocks.1.fast_path.norm.bias',
            'stages.3.blocks.0.norm1.bias',
            'norm3.bias',
            'token_predictors.0.norm.bias',
        )
    }
    assert list(depths.values()) == [0, 1, 3, 3, 4, 7, 8, 8]


def test_fewer_multiply_adds():
    """5.9 G of dense Swin-V2-T, window 8, 256 px, are published; the sparse form has no figure."""
    image = torch.randn(1, 3, 256, 256)
    assert count_macs(DynamicSwinV2('tiny'), image) / 1e9 == pytest.approx(5.9, abs=0.05)
    assert count_macs(DynamicSwinV2('tiny', 0.7), image) / 1e9 == pytest.approx(5.354, abs=0.001)


@pytest.mark.parametrize(
    'kwargs,text',
    [
        (dict(arch=dict(WIDTHS)), 'a dict needs exactly the keys embed_dims, .*extra_norm_every'),
        (
            dict(arch=dict(ARCH, extra_norm_every_n_blocks=-1)),
            'extra_norm_every_n_blocks=-1: must be a whole number >= 0',
        ),
        (
            dict(window_size=(8, 8, 8)),
            r'window_size=\(8, 8, 8\): needs one for each of the 4 stages',
        ),
        (dict(window_size=[8, 8, 8, 0]), 'window_size=0: must be a whole number >= 1'),
        (
            dict(pretrained_window_sizes=[8, 8, 8]),
            r'pretrained_window_sizes=\[8, 8, 8\]: needs one',
        ),
        (dict(pretrained_window_sizes=[8, 8, 8, -1]), 'pretrained_window_sizes=-1: must be'),
        (dict(qk_scale=0.5, embed_dims=16), 'DynamicSwinV2: unknown .*embed_dims=16, qk_scale=0.5'),
        (dict(window=8), r'DynamicSwinV2: unknown argument\(s\) window=8'),
        (dict(frozen_stages=4), 'frozen_stages=4: must lie in -1 .. 3'),
        (
            dict(stage_cfgs=dict(every=3)),
            'unknown keys every; known are .*extra_norm_every_n_blocks',
        ),
    ],
)
def test_bad_arguments(kwargs, text):
    with pytest.raises(ValueError, match=text):
        DynamicSwinV2(**{'arch': dict(ARCH), **kwargs})


CONFIGS = {
    'swinv2-tiny-w16_16xb64_in1k-256px.py': (16, 16, 16, 8),
    'swinv2-tiny-w8_16xb64_in1k-256px.py': (8, 8, 8, 8),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_swap_of_a_config_and_its_checkpoint(name, tmp_path):
    cfg = cli.load_config(f'mmpretrain::swin_transformer_v2/{name}')
    init_default_scope('mmpretrain')
    for part, value in (('drop_path_rate', 0.0), ('out_indices', (2, 3))):
        cfg.model.backbone[part] = value
    cfg.model.head.in_channels = 768
    dense = MODELS.build(cfg.model)
    randomise(dense.backbone)
    path = str(tmp_path / 'dense.pth')
    torch.save(dict(state_dict=dense.state_dict(), meta={}), path)
    sparsify(cfg, 0.7)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    model = MODELS.build(cfg.model)
    assert (
        tuple(stage.blocks[0].attn.window_size for stage in model.backbone.stages) == CONFIGS[name]
    )
    model.backbone.init_weights()
    # load_from gives the same: all of the dense weights, and only sparse parts start new.
    keys = MODELS.build(dict(cfg.model)).load_state_dict(
        load_from_anywhere(path)['state_dict'], strict=False
    )
    assert keys.unexpected_keys == []
    assert all('token_predictors' in key or 'fast_path' in key for key in keys.missing_keys)
    assert runs.check_weights(model, path, 'checkpoint') == len(keys.missing_keys) > 0
    image = torch.randn(1, 3, 256, 256)
    with torch.no_grad(), record_decisions(model.eval()) as log:
        model.backbone(image)
        model.backbone.keep_ratios = 1.0
        maps = model.backbone(image)
        expected = dense.backbone(image)
    assert [int(d.keep.sum()) for d in log.decisions] == [179, 128, 76, 256, 256, 256]
    for a, b in zip(maps, expected):
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize(
    'ours,theirs,names',
    [
        (DynamicSwinV2, DynamicSwin, ('Swin', 'DynamicSwinV2 .Swin-V2')),
        (DynamicSwin, DynamicSwinV2, ('Swin-V2', 'DynamicSwin .Swin')),
    ],
)
def test_swin_and_swin_v2_do_not_take_each_other(ours, theirs, names, tmp_path):
    models = {
        cls: cls(arch=dict(ARCH if cls is DynamicSwinV2 else WIDTHS), keep_ratios=0.7)
        for cls in (ours, theirs)
    }
    path = str(tmp_path / 'a.pth')
    torch.save(
        dict(state_dict={f'backbone.{k}': v for k, v in models[theirs].state_dict().items()}), path
    )
    text = f'a checkpoint of {names[0]}, another arch than this {names[1]}.: family'
    models[ours].init_cfg = dict(type='Pretrained', checkpoint=path)
    with pytest.raises(ValueError, match='init_cfg.checkpoint=.*' + text):
        models[ours].init_weights()
    with pytest.raises(cli.UserError, match='load_from .*' + text):
        runs.check_weights(torch.nn.ModuleDict(dict(backbone=models[ours])), path, 'load_from')


def test_extra_norms_are_told_from_a_checkpoint():
    normed = DynamicSwinV2(dict(ARCH, extra_norm_every_n_blocks=2))
    plain = DynamicSwinV2(dict(ARCH))
    with pytest.raises(ValueError, match=r'blocks to each extra norm 2 \(here 0\)'):
        fit_state_dict(normed.state_dict(), plain)
    with pytest.raises(ValueError, match='not there, such as stages.2.blocks.1.norm3.weight'):
        fit_state_dict(plain.state_dict(), normed)


def test_the_scale_of_the_cosines_is_limited():
    """To 100, which a trained checkpoint may exceed."""
    attention, windows = WindowAttentionV2(8, 2, 4).eval(), torch.randn(3, 16, 8)
    outputs = []
    for scale in (math.log(100), 9.0, 2.0):
        torch.nn.init.constant_(attention.logit_scale, scale)
        outputs.append(attention(windows))
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


def test_drop_path_drops_whole_branches():
    """After the norm: a block of which both branches are dropped passes its input on."""
    block = SwinBlockV2(8, 2, 4, drop_path=0.999).train()
    torch.nn.init.constant_(block.norm1.bias, 5.0)
    torch.nn.init.constant_(block.norm2.bias, 5.0)
    x = torch.randn(2, 16, 8)
    torch.manual_seed(0)
    assert torch.equal(run_block(block, x, (4, 4)).tokens, x)
