"""STViTSwin: parity with the published programs, structure, properties."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from golden import load, relative_error, release, stvit_input
from mmengine.registry import MODELS
from properties import AUTOCAST_DTYPES, backward_through, check_dtype, check_nan_stays_in_its_image

from dynsp_mm import DynamicSwin, STViTSwin
from dynsp_mm.analysis import count_macs, peak_memory
from dynsp_mm.backbones.stvit_swin import block_role
from dynsp_mm.checkpoints import convert_state_dict
from dynsp_mm.layers import GlobalBlock, InnerNeighbourhoodBlock, NeighbourhoodBlock, SwinBlock

ALL = (0, 1, 2, 3)
WIDTHS = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))
SMALL = {
    'full': dict(),
    'release': dict(pad_mask='release'),
    'deep': dict(depths=(1, 1, 14, 1)),
    'classification': dict(form='classification', semantic_token2=True),
}


def build(name='full', **kwargs):
    model = STViTSwin(
        **{**WIDTHS, 'out_indices': ALL, 'drop_path_rate': 0.0, **SMALL[name], **kwargs}
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
            if 'layer_scale' in key:
                parameter.add_(0.5)  # at 1e-5 nothing of the group would be seen
    return model


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


# ------------------------------------------------------------------ parity
@pytest.mark.parametrize('case', range(4))
@pytest.mark.parametrize('pad_mask', ['release', 'full'])
def test_dense_prediction_equals_the_published_program(pad_mask, case):
    golden = load('stvit_dense')
    config, case = golden['config'], golden['cases'][case]
    model = STViTSwin(
        embed_dims=config['embed_dim'],
        depths=config['depths'],
        num_heads=config['num_heads'],
        out_indices=ALL,
        pad_mask=pad_mask,
    ).eval()
    model.load_state_dict(convert_state_dict(release('stvit_dense')).backbone, strict=True)
    with torch.no_grad():
        maps = model(stvit_input(case['input']))
    for ours, theirs in zip(maps, case['early'] + case[pad_mask]):
        assert relative_error(ours, theirs) < 1e-5
    # The two masks differ, so that neither passes for the other.
    assert relative_error(case['full'][0], case['release'][0]) > 0.01


@pytest.mark.parametrize('index', range(2), ids=['semantic_token2', 'without'])
def test_classification_equals_the_published_program(index):
    golden = load('stvit_cls')
    config, case = golden['config'], golden['cases'][index]
    model = STViTSwin(
        arch=dict(
            embed_dims=config['embed_dim'], depths=config['depths'], num_heads=config['num_heads']
        ),
        form='classification',
        semantic_token2=case['semantic_token2'],
    ).eval()
    conversion = convert_state_dict(release(f'stvit_cls-{index}'))
    model.load_state_dict(conversion.backbone, strict=True)
    head = [conversion.state_dict[f'head.fc.{part}'] for part in ('weight', 'bias')]
    with torch.no_grad():
        logits = F.linear(model(stvit_input(golden['input']))[-1].mean((2, 3)), *head)
    assert relative_error(logits, case['logits']) < 1e-5


# ------------------------------------------------------------------ structure
def test_roles():
    group = ['plain', 'generate', 'refine', 'local', 'global', 'recover']
    assert [block_role(j, 6) for j in range(6)] == group
    assert [block_role(j, 18) for j in range(18)] == group * 3
    assert [block_role(j, 11) for j in range(11)] == group + ['plain'] * 5
    blocks = build('deep').stages[2].blocks
    kinds = [SwinBlock] + [NeighbourhoodBlock] * 3 + [GlobalBlock, NeighbourhoodBlock]
    assert [type(block) for block in blocks] == kinds * 2 + [SwinBlock] * 2
    # No shift in the groups; after them windows shift in turn, as in Swin.
    shifts = [block.attn.shift_size for block in blocks if isinstance(block, SwinBlock)]
    assert shifts == [0, 0, 0, 3]
    reaches = [block.reach for block in blocks if isinstance(block, NeighbourhoodBlock)]
    assert reaches == [14, 21, 3, 27] * 2
    kinds = [
        SwinBlock,
        InnerNeighbourhoodBlock,
        GlobalBlock,
        NeighbourhoodBlock,
        GlobalBlock,
        GlobalBlock,
    ]
    blocks = build('classification').stages[2].blocks
    assert [type(block) for block in blocks] == kinds and blocks[1].reach == 10
    assert all(
        isinstance(block, SwinBlock) for i in (0, 1, 3) for block in build().stages[i].blocks
    )


def test_arguments_reach_the_blocks():
    model = build(
        window_size=8,
        semantic_size=2,
        key_windows=(8, 12, 6),
        layer_scale_init_value=0.25,
        with_cp=True,
        drop_path_rate=0.8,
        qkv_bias=False,
        attn_drop_rate=0.3,
        drop_rate=0.1,
        mlp_ratio=2,
    )
    blocks = model.stages[2].blocks
    geometry = [
        (b.query_window, b.key_window, b.reach) for b in blocks if isinstance(b, NeighbourhoodBlock)
    ]
    assert geometry == [(2, 8, 8), (2, 8, 12), (2, 2, 2), (8, 2, 6)]
    for j, block in enumerate(blocks):
        assert block.with_cp
        assert block.drop_path.drop_prob == pytest.approx(0.8 * (j + 2) / 8)
        if j:
            assert block.attn.q.bias is None and block.attn.attn_drop == 0.3
            assert block.attn.proj_drop.p == 0.1 and block.ffn.feedforward_channels == 128
            assert block.layer_scale_1.mean().item() == pytest.approx(0.75, abs=0.05)
    assert STViTSwin('tiny', semantic_size=2).key_windows == (14, 21, 18)
    assert STViTSwin('tiny').stages[2].blocks[1].layer_scale_2.unique().item() == pytest.approx(
        1e-5
    )
    assert STViTSwin('t', semantic_stage=2, form='classification', window_size=8).key_windows == (
        11,
    )


def test_shift_where_map_equals_window():
    """The dense-prediction form keeps it, the classification form drops it, as published."""
    for form, kept in (('dense_prediction', True), ('classification', False)):
        attention = STViTSwin('tiny', form=form).stages[3].blocks[1].attn
        assert attention.shift_size == 3 and attention.pad_small_map == kept
    assert not STViTSwin('tiny', pad_small_map=False).stages[3].blocks[1].attn.pad_small_map


def test_position_embedding():
    model = build(use_abs_pos_embed=True, img_size=(64, 98))
    assert model.absolute_pos_embed.shape == (1, 16 * 25, 16)
    assert [m.shape[2:] for m in model(torch.randn(1, 3, 96, 64))][0] == (24, 16)


def test_parameters_and_multiply_adds():
    """Parameters are those of the published ImageNet checkpoints, classifier included."""
    for arch, width, expected in (('small', 768, 49_625_518), ('base', 1024, 87_812_336)):
        model = STViTSwin(arch, form='classification')
        count = sum(p.numel() for p in model.parameters()) + 1000 * (width + 1)
        assert count == expected
    image = torch.zeros(1, 3, 800, 1344)
    model = STViTSwin('small', out_indices=ALL)
    assert count_macs(model, image) / 1e9 <= 140


@pytest.mark.parametrize(
    'size',
    [
        (1, 96, 96),
        (8, 64, 64),
        (2, 128, 128),
        (1, 32, 1600),
        (1, 160, 160),
        (1, 224, 224),
        (1, 127, 224),
        (1, 512, 512),
        pytest.param((1, 800, 1344), marks=pytest.mark.slow),
    ],
)
def test_peak_memory_is_no_more_than_dense_swins(size):
    image = torch.zeros(size[0], 3, *size[1:])
    ours, dense = (
        peak_memory(cls('small', out_indices=ALL), image) for cls in (STViTSwin, DynamicSwin)
    )
    assert 0 < ours <= dense


# ------------------------------------------------------------------ properties
@pytest.mark.parametrize('size', [(32, 32), (33, 65), (64, 100), (127, 224), (340, 120)])
@pytest.mark.parametrize('batch', [1, 2, 3])
def test_any_size_and_batch(name, size, batch):
    """An image's maps do not depend on its neighbours in the batch."""
    model, image = build(name).eval(), torch.randn(batch, 3, *size)
    with torch.no_grad():
        together = model(image)
        stride = 4
        for i, m in enumerate(together):
            hw = tuple(-(-side // stride) for side in size)
            assert m.shape == (batch, 16 * 2**i, *hw) and m.is_contiguous()
            stride *= 2
        for i in range(batch):
            for whole, alone in zip(together, model(image[i : i + 1])):
                assert relative_error(whole[i : i + 1], alone) < 1e-5


def test_full_mask_hides_the_padding():
    """With every padded key masked, what stands in the padding does not matter."""
    model, image = build('full').eval(), torch.randn(1, 3, 130, 190)
    block = model.stages[2].blocks[2]
    semantic, tokens = torch.randn(1, 6, 6, 64), torch.randn(1, 9, 12, 64)
    with torch.no_grad():
        before = block(semantic, tokens)
        kv = block.attn.kv
        handle = kv.register_forward_hook(
            lambda module, args, out: (
                out + 7 if args[0].shape[0] == 1 and args[0].dim() == 2 else out
            )
        )
        after = block(semantic, tokens)
        handle.remove()
        assert torch.equal(before, after)
        assert not torch.allclose(model(image)[2], build('release').eval()(image)[2])


def test_gradient_reaches_each_parameter(name):
    model = build(name).train()
    sum(m.square().mean() for m in model(torch.randn(2, 3, 96, 128))).backward()
    for key, parameter in model.named_parameters():
        gradient = parameter.grad
        if key.endswith('attn.kv.bias'):  # the bias of keys shifts all logits alike
            gradient = gradient[len(gradient) // 2 :]
        assert gradient is not None and gradient.abs().sum() > 0, f'no gradient for {key}'


def test_checkpointing_changes_nothing(name, monkeypatch):
    calls, checkpoint = [], torch.utils.checkpoint.checkpoint

    def counted(*args, **kwargs):
        calls.append(args)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', counted)
    plain, image = build(name).train(), torch.randn(2, 3, 96, 64)
    saving = build(name, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for model in (plain, saving):
        sum(m.square().mean() for m in model(image)).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters()})
    assert len(calls) == sum(saving.depths)  # each block of the saving model, none of the other
    for key in gradients[0]:
        torch.testing.assert_close(gradients[0][key], gradients[1][key])


@pytest.mark.parametrize('dtype', AUTOCAST_DTYPES)
@pytest.mark.parametrize('mode', [True, False], ids=['train', 'eval'])
def test_autocast(name, dtype, mode):
    model, image = build(name).train(mode), torch.randn(2, 3, 64, 96)
    maps = backward_through(model, image, dtype)
    with torch.no_grad():
        for low, exact in zip(maps, model(image)):
            assert relative_error(low.float(), exact) < 0.1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_whole_model_in_another_dtype(name, dtype):
    check_dtype(build(name), dtype)


def test_nan_in_one_image_stays_there(name):
    check_nan_stays_in_its_image(build(name))


def test_training_after_inference_mode(name):
    """Masks that inference mode put into the cache serve a training step."""
    model, image = build(name), torch.randn(1, 3, 97, 71)
    with torch.inference_mode():
        model.eval()(image)
    model.train()(image)[3].sum().backward()


def test_frozen_stages_and_norm_eval():
    model = build(frozen_stages=3, norm_eval=True).train()
    stem = [m for m in model.patch_embed.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(stem) == 2 and not any(m.training for m in stem)
    model(torch.randn(1, 3, 64, 64))[3].sum().backward()
    assert all(p.grad is None for p in model.patch_embed.parameters())
    assert all(p.grad is None for p in model.stages[2].parameters())
    assert all(p.grad is not None for p in model.stages[3].parameters())
    assert not any(
        m.training
        for m in build(norm_eval=True).train().patch_embed.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    )
    assert build().train().patch_embed.layers[0].bn.training


def test_layer_depths():
    model = build('classification')
    assert model.get_layer_depth('patch_embed.layers.0.conv.weight') == (0, 11)
    assert model.get_layer_depth('stages.2.blocks.0.norm1.weight') == (3, 11)
    assert model.get_layer_depth('stages.2.semantic_token2') == (8, 11)
    assert model.get_layer_depth('norm3.weight') == (10, 11)


def test_semantic_token2_is_resized():
    model = STViTSwin(arch=WIDTHS, form='classification', semantic_token2=True)
    stage = model.stages[2]
    assert stage.semantic_token2.shape == (1, 36, 64)
    model.init_weights()
    assert 0.01 < stage.semantic_token2.std() < 0.03
    assert torch.equal(stage._resized_token2((6, 6)).flatten(1, 2), stage.semantic_token2)
    expected = F.interpolate(
        stage.semantic_token2.view(1, 6, 6, 64).permute(0, 3, 1, 2), (9, 3), mode='bicubic'
    ).permute(0, 2, 3, 1)
    assert torch.equal(stage._resized_token2((9, 3)), expected)
    other = STViTSwin(arch=WIDTHS, form='classification', semantic_token2=True, img_size=(448, 336))
    assert other.stages[2].token_grid == (12, 9)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_registered_for_all_libraries(scope):
    registry = importlib.import_module(f'{scope}.registry').MODELS
    model = registry.build(dict(type='STViTSwin', arch='tiny'))
    assert type(model) is MODELS.get('STViTSwin') is STViTSwin


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base', 'large'])
def test_every_arch_runs(arch):
    model = STViTSwin(arch, out_indices=ALL).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]


# ------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    'kwargs,text',
    [
        (
            dict(depths=(2, 2, 5, 2)),
            r'depths=\(2, 2, 5, 2\): stage 2 has 5 blocks, too few for one '
            r'group of 6',
        ),
        (dict(arch='tiny', semantic_stage=1), 'stage 1 has 2 blocks, too few'),
        (
            dict(arch='tiny', semantic_stage=4),
            'semantic_stage=4: must be the index of a stage, 0 .. 3',
        ),
        (
            dict(semantic_size=8),
            'semantic_size=8: a window of window_size=7 holds a grid of at most 7',
        ),
        (dict(semantic_size=0), 'semantic_size=0: must be a whole number >= 1'),
        (dict(key_windows=(6, 21, 27)), r'key_windows=\(6, 21, 27\): entry 0 must be .* >= 7'),
        (dict(key_windows=(14, 21, 2)), r'entry 2 must be .* >= 3'),
        (
            dict(key_windows=(14, 21)),
            r"key_windows=\(14, 21\): form='dense_prediction' needs a tuple "
            'of 3',
        ),
        (dict(key_windows=14), 'key_windows=14: .* needs a tuple of 3'),
        (dict(key_windows=(14, 21.0, 27)), 'entry 1 must be a whole number'),
        (dict(form='classification', key_windows=(14, 21, 27)), 'needs a tuple of 1'),
        (dict(pad_mask='none'), "pad_mask='none': must be one of full, release"),
        (dict(pad_mask=True), 'pad_mask=True: must be one of full, release'),
        (dict(form='dense'), "form='dense': must be one of dense_prediction, classification"),
        (dict(semantic_token2=True), "semantic_token2=True: only form='classification' has it"),
        (dict(patch_size=2), 'patch_size=2: must be 4'),
        (dict(patch_cfg=dict(kernel_size=7)), 'patch_cfg=.*: STViTSwin has a convolutional stem'),
        (dict(layer_scale_init_value='small'), "layer_scale_init_value='small': must be a number"),
        (dict(arch='giant'), "arch='giant': must be one of"),
    ],
)
def test_arguments(kwargs, text):
    with pytest.raises(ValueError, match=text):
        STViTSwin(**kwargs)


@pytest.mark.parametrize('shape', [(1, 2, 64, 64), (3, 64, 64), (1, 3, 0, 64), (0, 3, 64, 64)])
def test_images(shape):
    with pytest.raises(ValueError, match='STViTSwin: input shape'):
        build()(torch.zeros(shape))
