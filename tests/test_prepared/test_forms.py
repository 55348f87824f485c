"""Prepared forms compute what the modules compute."""

import copy
import pickle
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_state_dict
from streams import run_block
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import dynsp_mm
from dynsp_mm.analysis import held_memory
from dynsp_mm.layers import ConvNeXtBlock, PatchMerging, WindowAttention
from dynsp_mm.ops import pieces
from dynsp_mm.ops.backends import BACKEND_CLASSES
from dynsp_mm.prepared import Preparable, unprepared
from dynsp_mm.recording import record_decisions
from dynsp_mm.sparsity import TokenStream, run_blocks

SWIN = dict(
    type='DynamicSwin',
    out_indices=(0, 1, 2, 3),
    arch=dict(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 2, 4)),
)
CONVNEXT = dict(
    type='DynamicConvNeXt',
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
    arch=dict(depths=[1, 1, 4, 1], channels=[16, 16, 32, 40]),
    layer_scale_init_value=0.5,
)
STVIT = dict(
    type='STViTSwin',
    out_indices=(0, 1, 2, 3),
    layer_scale_init_value=0.3,
    arch=dict(embed_dims=16, depths=(1, 1, 7, 1), num_heads=(1, 2, 2, 4)),
)
SPARSE = (0.7, 0.5, 0.3)
BACKENDS = ('eager', 'onednn')
# Even, odd with padding in every stage, smaller than a window.
SIZES = [(1, 96, 160), (2, 101, 75), (3, 32, 64)]


def build(config, **changes):
    """A backbone in eval mode in which no norm, bias or scale is the identity."""
    model = MODELS.build({**config, **changes})
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            # Scores that lie apart: where two are nearly the same, rounding decides.
            if 'token_predictors' in name and parameter.dim() == 2:
                parameter.mul_(10)
        for buffer in model.buffers():  # of batch norms
            if buffer.dtype == torch.float32 and buffer.dim() == 1:
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


def relative_error(maps, expected):
    # max() of Python would not see NaN.
    return float(
        torch.stack([(a - b).abs().max() / b.abs().max() for a, b in zip(maps, expected)]).max()
    )


def prepared_and_plain(model, image):
    with torch.no_grad():
        with unprepared():
            expected = model(image)
        return model(image), expected


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    'config',
    [
        {**SWIN, 'keep_ratios': None},
        {**SWIN, 'keep_ratios': SPARSE},
        {**SWIN, 'keep_ratios': (1.0, 0.5, 1e-6)},  # all slow, both, all fast
        {**SWIN, 'keep_ratios': SPARSE, 'qkv_bias': False, 'qk_scale': 0.3, 'pad_small_map': True},
        {**SWIN, 'keep_ratios': SPARSE, 'window_size': [4, 5, 6, 3], 'mlp_ratio': 2.5},
        {**SWIN, 'keep_ratios': SPARSE, 'selection': dict(type='threshold', threshold=0.945)},
        {**CONVNEXT, 'keep_ratios': None},
        {**CONVNEXT, 'keep_ratios': SPARSE},
        {**CONVNEXT, 'keep_ratios': SPARSE, 'layer_scale_init_value': 0.0},
        STVIT,
        {**STVIT, 'pad_mask': 'release'},
        {**STVIT, 'form': 'classification', 'semantic_token2': True},
    ],
    ids=lambda c: (
        '-'.join(
            str(v)
            for k, v in c.items()
            if k not in ('type', 'arch', 'out_indices', 'gap_before_final_norm')
        )
        or c['type']
    ),
)
def test_equals_the_modules(config, backend):
    model = build(config).prepare_for_inference(backend)
    assert all(
        module._form is not None for module in model.modules() if isinstance(module, Preparable)
    )
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, height, width)
        maps, expected = prepared_and_plain(model, image)
        assert relative_error(maps, expected) < 1e-5
        assert all(a.is_contiguous() for a in maps)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    'config',
    [
        {**SWIN, 'keep_ratios': SPARSE, 'window_size': 4},
        {**CONVNEXT, 'keep_ratios': SPARSE},
        {**STVIT, 'window_size': 4},
    ],
    ids=lambda c: c['type'],
)
@pytest.mark.parametrize('chunk', [20, None])
def test_equals_the_modules_in_pieces(config, backend, chunk, monkeypatch):
    """However many rows are taken at a time: a map has several pieces of different lengths."""

    class InPieces(BACKEND_CLASSES[backend]):
        def __init__(self, device):
            super().__init__(device)
            self.chunk = chunk

    cuts = {}  # (module, most rows or windows at a time) -> lengths of pieces of each map

    def recorder(module):
        def cut(length, size):
            slices = pieces(length, size)
            cuts.setdefault((module, size), []).append([p.stop - p.start for p in slices])
            return slices

        return cut

    monkeypatch.setitem(BACKEND_CLASSES, backend, InPieces)
    for module in (
        'prepared.paths',
        'prepared.windows',
        'layers.patch_merging',
        'sparsity.predictors',
    ):
        monkeypatch.setattr(f'dynsp_mm.{module}.pieces', recorder(module))
    model = build(config).prepare_for_inference(backend)
    maps, expected = prepared_and_plain(model, torch.randn(2, 3, 101, 75))
    assert relative_error(maps, expected) < 1e-5
    users = {('prepared.paths', chunk)}
    if config['type'] != 'STViTSwin':
        users |= {('sparsity.predictors', chunk)}
        # Of three predictors; in pieces each of the two images by itself.
        assert len(cuts['sparsity.predictors', chunk]) == (6 if chunk else 3)
    if config['type'] != 'DynamicConvNeXt':  # in attention, windows of 16 tokens
        users |= {('prepared.windows', chunk and 2), ('layers.patch_merging', chunk)}
    assert set(cuts) == users
    for user, lengths in cuts.items():
        assert any(len(sizes) > 1 for sizes in lengths) == (chunk is not None), user
    if chunk:
        assert any(len(set(sizes)) > 1 for sizes in cuts['prepared.paths', chunk])


@pytest.mark.parametrize('config', [SWIN, CONVNEXT])
def test_decisions_are_the_same(config):
    model = build(config, keep_ratios=SPARSE).prepare_for_inference()
    image = torch.randn(2, 3, 96, 96)
    with record_decisions(model) as log, torch.no_grad():
        model(image)
        with unprepared():
            model(image)
    folded, plain = log.decisions[:3], log.decisions[3:]
    for a, b in zip(folded, plain):
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-5, atol=1e-5)
        assert torch.equal(a.keep, b.keep)


def computes_half_precision():
    """Whether the CPU's operators take float16, as with old versions of torch they do not."""
    half = torch.zeros(1, 1, 1, 1, dtype=torch.float16)
    try:
        F.conv2d(half, half, half.view(1))
        F.scaled_dot_product_attention(half, half, half)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    'config',
    [{**SWIN, 'keep_ratios': SPARSE}, {**CONVNEXT, 'keep_ratios': SPARSE}, STVIT],
    ids=lambda c: c['type'],
)
@pytest.mark.parametrize(
    'dtype,backend,limit',
    [
        (torch.float64, 'eager', 1e-12),
        (torch.bfloat16, 'auto', 0.03),
        (torch.bfloat16, 'eager', 0.03),
        (torch.float16, 'eager', 0.004),
    ],
    ids=str,
)
def test_dtypes(config, dtype, backend, limit):
    """Against the modules in float32 or more, with the same weights and image."""
    if dtype == torch.float16 and not computes_half_precision():
        pytest.skip('this torch has no float16 on the CPU')
    # Decisions of reduced precision fall otherwise where scores are near each other.
    if 'keep_ratios' in config and dtype != torch.float64:
        config = {**config, 'keep_ratios': (1.0, 1.0, 1e-6)}
    model = build(config).to(dtype)
    exact = copy.deepcopy(model).to(torch.promote_types(dtype, torch.float32))
    image = torch.randn(1, 3, 96, 96, dtype=dtype)
    model.prepare_for_inference(backend)
    assert all(
        module._form is not None for module in model.modules() if isinstance(module, Preparable)
    )
    with torch.no_grad():
        maps, expected = model(image), exact(image.to(exact.norm3.weight.dtype))
    assert all(a.dtype == dtype for a in maps)
    assert relative_error(maps, expected) < limit


def test_images_do_not_influence_each_other():
    for config in ({**SWIN, 'keep_ratios': SPARSE}, {**CONVNEXT, 'keep_ratios': SPARSE}, STVIT):
        model, image = build(config).prepare_for_inference(), torch.randn(2, 3, 75, 64)
        broken = image.clone()
        broken[0] = float('nan')
        with torch.no_grad():
            clean, maps = model(image), model(broken)
        for a, b in zip(maps, clean):
            assert a[0].isnan().all()
            torch.testing.assert_close(a[1], b[1])


@pytest.mark.parametrize(
    'config,left',
    [
        ({**SWIN, 'act_cfg': dict(type='ReLU')}, 'SwinBlock'),
        ({**CONVNEXT, 'act_cfg': dict(type='ReLU')}, 'ConvNeXtBlock'),
        ({**CONVNEXT, 'act_cfg': dict(type='GELU', approximate='tanh')}, 'ConvNeXtBlock'),
        ({**CONVNEXT, 'use_grn': True}, 'ConvNeXtBlock'),
        ({**STVIT, 'act_cfg': dict(type='ReLU')}, 'GlobalBlock'),
        (
            dict(
                type='DynamicSwinV2',
                window_size=4,
                arch=dict(SWIN['arch'], extra_norm_every_n_blocks=0),
                out_indices=(0, 1, 2, 3),
            ),
            'SwinBlockV2',
        ),
    ],
)
def test_what_has_no_form_runs_as_it_is(config, left):
    model = build(config).prepare_for_inference()
    assert any(type(module).__name__ == left and module._form is None for module in model.modules())
    maps, expected = prepared_and_plain(model, torch.randn(2, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


class Marked(Exception):
    """A folded form ran."""


@pytest.fixture
def marked(monkeypatch):
    """A prepared backbone whose folded blocks raise."""

    def run(*args):
        raise Marked

    model = build(SWIN, keep_ratios=SPARSE).prepare_for_inference()
    monkeypatch.setattr('dynsp_mm.prepared.PreparedPath.add_', run)
    return model


def test_runs_without_gradients_only(marked):
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), pytest.raises(Marked):
        marked(image)
    with torch.inference_mode(), pytest.raises(Marked):
        marked(image)
    marked(image)[-1].sum().backward()
    assert marked.stages[2].blocks[0].norm2.weight.grad is not None


def test_autocast_runs_the_modules(marked):
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        marked(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    'change',
    [
        lambda m: m.train(),
        lambda m: m.double().float(),
        lambda m: m.load_state_dict(m.state_dict()),
        lambda m: m.discard_prepared(),
        lambda m: m.requires_grad_(False).to('cpu'),
    ],
    ids=['train', 'dtype', 'load', 'discard', 'device'],
)
def test_is_dropped_when_weights_may_change(marked, change):
    change(marked)
    assert all(m._form is None for m in marked.modules() if isinstance(m, Preparable))
    with torch.no_grad():
        marked.eval()(torch.randn(1, 3, 64, 64))


def test_copies_are_plain(marked):
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for other in (copy.deepcopy(marked), pickle.loads(pickle.dumps(marked))):
            other(image)
            assert torch.equal(other.norm3.weight, marked.norm3.weight)
        with pytest.raises(Marked):  # the original still has its forms
            marked(image)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    'config',
    [
        {**SWIN, 'keep_ratios': SPARSE},
        {**CONVNEXT, 'keep_ratios': SPARSE},
        STVIT,
        {**STVIT, 'form': 'classification'},
        {**SWIN, 'keep_ratios': None, 'act_cfg': dict(type='ReLU')},
    ],
    ids=lambda c: '-'.join(str(c.get(k, '')) for k in ('type', 'form', 'act_cfg')),
)
def test_released_weights_are_held_once(config, backend):
    model, other = build(config), torch.randn(2, 3, 101, 75)
    before = held_memory(model)
    linear = sum(
        part.weight.nbytes
        for module in model.modules()
        if isinstance(module, Preparable)
        for part in module.modules()
        if isinstance(part, torch.nn.Linear)
    )
    with torch.no_grad():
        expected = model(other)
        twice = held_memory(model.prepare_for_inference(backend))
        assert before < twice < 2 * before
        once = held_memory(model.prepare_for_inference(backend, release_weights=True))
        assert relative_error(model(other), expected) < 1e-5
    if 'act_cfg' not in config:  # there blocks have no form and keep their weights
        assert once == pytest.approx(twice - linear, rel=1e-3)
    assert once < twice


@pytest.mark.parametrize(
    'use',
    [
        lambda m, x: m(x),
        lambda m, x: m.train(),
        lambda m, x: m.state_dict(),
        lambda m, x: get_state_dict(m),
        lambda m, x: copy.deepcopy(m),
        lambda m, x: pickle.dumps(m),
        lambda m, x: m.double(),
        lambda m, x: m.discard_prepared(),
        lambda m, x: m.prepare_for_inference(),
        lambda m, x: m.prepare_for_inference('eager', True),
        lambda m, x: m.load_state_dict(build(SWIN, keep_ratios=SPARSE).state_dict()),
        lambda m, x: torch.no_grad()(unprepared()(m))(x),
        lambda m, x: torch.no_grad()(torch.autocast('cpu', torch.bfloat16)(m))(x),
        lambda m, x: m.stages[0].blocks[0]._replicate_for_data_parallel(),
        lambda m, x: m.stages[0].blocks[0].ffn.state_dict(),
        lambda m, x: m.stages[0].blocks[0].ffn(torch.zeros(1, 16)),
    ],
    ids=[
        'gradients',
        'train',
        'state_dict',
        'mmengine',
        'deepcopy',
        'pickle',
        'cast',
        'discard',
        'prepare',
        'release',
        'load',
        'reference',
        'autocast',
        'replica',
        'part',
        'layer',
    ],
)
def test_what_needs_released_weights_says_so(use):
    model, image = build(SWIN, keep_ratios=SPARSE), torch.randn(1, 3, 64, 64)
    model.prepare_for_inference(release_weights=True)
    assert model.stages[0].blocks[0].ffn.layers[1].weight.isnan().all()
    kept = {
        name: tensor.clone()
        for name, tensor in model.named_parameters()
        if not tensor.isnan().any()
    }
    with torch.no_grad():
        expected = model(image)
    with pytest.raises(RuntimeError, match='were released by prepare_for_inference'):
        use(model, image)
    # Nothing was changed before it was refused.
    assert not any(module.training for module in model.modules())
    assert len(kept) > 50 and all(
        torch.equal(model.get_parameter(name), tensor) for name, tensor in kept.items()
    )
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(image), expected))


def test_shared_weights_are_released_where_nobody_needs_them():
    """Of two folded blocks; not those that a block without a form, or a head, has too."""
    model, image = build(SWIN, keep_ratios=SPARSE), torch.randn(1, 3, 64, 64)
    first, second, third, fourth = model.stages[2].blocks
    second.ffn.layers[1] = first.ffn.layers[1]
    fourth.ffn.layers[1] = third.ffn.layers[1]
    fourth.ffn.layers[0][1] = torch.nn.ReLU()
    whole = torch.nn.ModuleDict(dict(backbone=model, head=torch.nn.Linear(128, 128)))
    tied = model.stages[3].blocks[0].attn.w_msa.proj
    whole['head'].weight = tied.weight
    with torch.no_grad():
        expected = model(image)
    dynsp_mm.prepare_for_inference(whole, release_weights=True)
    assert second.ffn.layers[1].weight.isnan().all()
    assert fourth.ffn.layers[1].weight.isfinite().all() and tied.weight.isfinite().all()
    with torch.no_grad():
        assert relative_error(model(image), expected) < 1e-5
        assert whole['head'](torch.zeros(1, 128)).isfinite().all()


def test_what_cannot_be_prepared_releases_nothing(monkeypatch):
    model, image = build(SWIN, keep_ratios=SPARSE), torch.randn(1, 3, 64, 64)
    pack, calls = BACKEND_CLASSES['eager'].pack, []

    def fail(*args):
        calls.append(args)
        if len(calls) > 11:
            raise MemoryError
        return pack(*args)

    monkeypatch.setattr(BACKEND_CLASSES['eager'], 'pack', fail)
    with pytest.raises(MemoryError):
        model.prepare_for_inference('eager', release_weights=True)
    monkeypatch.undo()
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    maps, expected = prepared_and_plain(model.prepare_for_inference(), image)
    assert relative_error(maps, expected) < 1e-5


def test_weights_of_inference_mode_stay():
    with torch.inference_mode():
        model = build(SWIN, keep_ratios=None).prepare_for_inference(release_weights=True)
        maps, expected = prepared_and_plain(model, torch.randn(1, 3, 64, 64))
        assert relative_error(maps, expected) < 1e-5


def test_a_written_to_norm_cannot_bring_released_weights_back():
    model = build(SWIN, keep_ratios=None).prepare_for_inference(release_weights=True)
    with torch.no_grad():
        model.stages[0].blocks[0].norm2.weight.add_(1)
        with pytest.raises(RuntimeError, match='were released'):
            model(torch.randn(1, 3, 64, 64))


def test_state_dict_does_not_change():
    model = build(STVIT)
    before = copy.deepcopy(model.state_dict())
    after = model.prepare_for_inference().state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_new_weights_need_new_forms():
    model = build(CONVNEXT, keep_ratios=SPARSE).prepare_for_inference()
    model.load_state_dict(
        {
            key: value + 0.01 if value.is_floating_point() else value
            for key, value in model.state_dict().items()
        }
    )
    model.prepare_for_inference()
    maps, expected = prepared_and_plain(model, torch.randn(1, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


def watch(module, seen):
    """Keeps what goes into a module and what comes out, each with a copy."""

    def keep(value):
        tokens = value.tokens if isinstance(value, TokenStream) else value
        if torch.is_tensor(tokens):
            seen.append((tokens, tokens.clone()))

    module.register_forward_pre_hook(lambda m, args: keep(args[0]))
    module.register_forward_hook(lambda m, args, out: keep(out))


@pytest.mark.parametrize('config', [SWIN, CONVNEXT], ids=lambda c: c['type'])
@pytest.mark.parametrize(
    'choose',
    [
        lambda m, stages: getattr(m, 'downsample_layers', m.stages),
        lambda m, stages: [stage[0] for stage in stages],
        lambda m, stages: [stage[-1] for stage in stages],
        lambda m, stages: [stages[2][1]],
        lambda m, stages: m.token_predictors,
        lambda m, stages: [m.token_predictors[1].norm],
        lambda m, stages: [
            block.depthwise_conv
            for stage in stages
            for block in stage
            if isinstance(block, ConvNeXtBlock)
        ],
    ],
    ids=['stages', 'first', 'last', 'second', 'predictors', 'norm', 'conv'],
)
def test_hooks_see_maps_that_stay(config, choose):
    """Blocks write their output over their input where nobody else has it."""
    model, seen = build(config, keep_ratios=SPARSE).prepare_for_inference(), []
    modules = choose(model, [getattr(stage, 'blocks', stage) for stage in model.stages])
    for module in modules:
        watch(module, seen)
    model.token_predictors[1].discard_prepared()  # so that what is inside it runs
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert len(seen) >= len(modules)
    assert all(torch.equal(held, copied) for held, copied in seen)


@pytest.mark.parametrize(
    'register', [register_module_forward_hook, register_module_forward_pre_hook]
)
def test_hooks_of_all_modules_see_maps_that_stay(register):
    model, seen = build(CONVNEXT, keep_ratios=SPARSE).prepare_for_inference(), []

    def see(module, args, out=None):
        if isinstance(module, ConvNeXtBlock):
            held = (args[0] if out is None else out).tokens
            seen.append((held, held.clone()))

    handle = register(see)
    try:
        with torch.no_grad():
            model(torch.randn(1, 3, 64, 64))
    finally:
        handle.remove()
    assert len(seen) == 7 and all(torch.equal(out, copied) for out, copied in seen)


class Wrapped(torch.nn.Module):
    """Adds to what a block makes, as adapters beside blocks do."""

    def __init__(self, block, channels):
        super().__init__()
        self.block, self.beside = block, torch.nn.Linear(channels, channels)

    def forward(self, stream, *args):
        out = self.block(stream, *args)
        return out._replace(tokens=out.tokens + self.beside(stream.tokens))


class Skip(torch.nn.Module):
    def forward(self, stream, *args):
        return stream


@pytest.mark.parametrize('config', [SWIN, CONVNEXT], ids=lambda c: c['type'])
@pytest.mark.parametrize('skip', [False, True])
def test_wrapped_blocks_keep_their_input(config, skip):
    model = build(config, keep_ratios=SPARSE)
    for stage in model.stages:
        blocks = getattr(stage, 'blocks', stage)
        for index in (0, 2) if len(blocks) > 2 else (0,):
            norm = next(m for m in blocks[index].modules() if isinstance(m, torch.nn.LayerNorm))
            blocks[index] = Skip() if skip else Wrapped(blocks[index], norm.normalized_shape[0])
    maps, expected = prepared_and_plain(model.prepare_for_inference(), torch.randn(2, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


@pytest.mark.parametrize('config', [SWIN, CONVNEXT], ids=lambda c: c['type'])
def test_a_stage_leaves_its_input(config):
    stage = build(config, keep_ratios=None).prepare_for_inference().stages[1]
    blocks = getattr(stage, 'blocks', stage)
    tokens = torch.randn(2, 72, 32 if config is SWIN else 16)
    before = tokens.clone()
    with torch.no_grad():
        for chosen in (blocks, [Skip(), *blocks, blocks[0]]):
            run_blocks(chosen, TokenStream(tokens, (9, 8)))
            assert torch.equal(tokens, before)


@pytest.mark.parametrize('config', [SWIN, CONVNEXT], ids=lambda c: c['type'])
def test_blocks_overwrite_only_what_they_may(config):
    block = build(config, keep_ratios=None).prepare_for_inference().stages[1]
    block = getattr(block, 'blocks', block)[0]
    # The memory of a channels-first map.
    x = torch.randn(2, 32 if config is SWIN else 16, 72).transpose(1, 2)
    before = x.clone()
    with torch.no_grad():
        out = run_block(block, x, (9, 8)).tokens
        assert torch.equal(x, before) and out.is_contiguous()
        x = x.contiguous()
        overwritten = run_block(block, x, (9, 8), owned=True).tokens
        again = run_block(block, before, (9, 8), owned=True).tokens  # not contiguous
    assert overwritten.data_ptr() == x.data_ptr() and torch.equal(overwritten, out)
    assert torch.equal(again, out)


class DoubledLinear(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class DoubledNorm(torch.nn.LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    'name,part', [('norm2', DoubledNorm(16)), ('ffn.layers.1', DoubledLinear(64, 16))]
)
def test_layers_that_are_more_than_their_weights_run(name, part):
    model = build(SWIN, keep_ratios=None)
    block = model.stages[0].blocks[0]
    parent, _, child = name.rpartition('.')
    setattr(block.get_submodule(parent), child, part)
    model.prepare_for_inference()
    maps, expected = prepared_and_plain(model, torch.randn(1, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


@pytest.mark.parametrize(
    'config,name',
    [
        (CONVNEXT, 'stages.2.1.norm'),
        (CONVNEXT, 'stages.2.1.fast_path.norm'),
        (CONVNEXT, 'token_predictors.0.norm'),
        (SWIN, 'stages.2.blocks.1.norm1'),
        (SWIN, 'stages.2.blocks.1.fast_path.norm'),
        (STVIT, 'stages.2.blocks.1.norm1'),
        (STVIT, 'stages.2.blocks.5.norm2'),
    ],
)
def test_other_norms_run(config, name):
    model = build(config, **{} if config is STVIT else dict(keep_ratios=SPARSE))
    parent, _, child = name.rpartition('.')
    part = model.get_submodule(parent)
    setattr(
        part,
        child,
        torch.nn.LayerNorm(getattr(part, child).normalized_shape, elementwise_affine=False),
    )
    maps, expected = prepared_and_plain(model.prepare_for_inference(), torch.randn(2, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


def test_attention_of_a_subclass_runs():
    class Flat(WindowAttention):
        def position_bias(self):
            return torch.zeros_like(self.relative_position_bias_table)

        def prepare(self, q, k):
            return 2 * q, k

    model = build(
        SWIN, keep_ratios=None, stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(attention=Flat)))
    ).prepare_for_inference()
    assert model.stages[0].blocks[0]._form is None
    maps, expected = prepared_and_plain(model, torch.randn(1, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


def test_hook_of_a_scaled_layer_runs():
    model, seen = build(CONVNEXT, keep_ratios=None), []
    hooked = model.stages[0][0].pointwise_conv2
    hooked.register_forward_hook(lambda *args: seen.append(args[0]))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
        model.prepare_for_inference()(torch.randn(1, 3, 64, 64))
    assert seen == [hooked, hooked]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_small_scales_keep_gradients_in_reduced_precision(dtype):
    block = ConvNeXtBlock(32, layer_scale_init_value=1e-6)
    x, direction, grads = torch.randn(1, 64, 32), torch.randn(1, 64, 32), []
    for enabled in (False, True):
        block.zero_grad()
        with torch.autocast('cpu', dtype, enabled=enabled):
            out = run_block(block, x, (8, 8)).tokens
        (2.0**13 * (out.float() * direction).sum()).backward()  # as gradients are scaled
        grads.append(
            [
                block.pointwise_conv1.weight.grad.clone(),
                block.pointwise_conv2.weight.grad.clone(),
                block.gamma.grad.clone(),
            ]
        )
    for exact, reduced in zip(*grads):
        assert (reduced - exact).norm() < 0.05 * exact.norm()


def test_optimizer_steps_drop_the_form():
    model, image = build(SWIN, keep_ratios=None).prepare_for_inference(), torch.randn(1, 3, 64, 64)
    model(image)[-1].square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    maps, expected = prepared_and_plain(model, image)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected))
    maps, expected = prepared_and_plain(model.prepare_for_inference(), image)
    assert relative_error(maps, expected) < 1e-5


def test_other_tensors_in_place_of_weights_drop_the_form():
    image = torch.randn(1, 3, 64, 64)
    other = {
        name: 2 * tensor if tensor.is_floating_point() else tensor
        for name, tensor in build(SWIN, keep_ratios=None).state_dict().items()
    }
    model = build(SWIN, keep_ratios=None).prepare_for_inference()
    with torch.no_grad():
        called = torch.func.functional_call(model, other, (image,))
    model.prepare_for_inference()
    for block in model.stages[2].blocks:
        linear = block.ffn.layers[0][0]
        linear.weight = torch.nn.Parameter(2 * linear.weight.detach())
    maps, expected = prepared_and_plain(model, image)
    assert relative_error(maps, expected) < 1e-5
    model.prepare_for_inference()
    for block in model.stages[2].blocks:
        linear = block.ffn.layers[1]
        linear.weight.data = 2 * linear.weight.data
    maps, expected = prepared_and_plain(model, image)
    assert relative_error(maps, expected) < 1e-5
    model.prepare_for_inference()
    model.stages[2].load_state_dict(
        {
            name[len('stages.2.') :]: tensor
            for name, tensor in other.items()
            if name.startswith('stages.2.')
        },
        assign=True,
    )
    maps, expected = prepared_and_plain(model, image)
    assert relative_error(maps, expected) < 1e-5
    model.load_state_dict(other)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(called, model(image)))


@pytest.mark.parametrize(
    'config,name',
    [
        (SWIN, 'stages.2.blocks.1.ffn.layers.1'),
        (SWIN, 'stages.0.blocks.0.attn.w_msa.qkv'),
        (CONVNEXT, 'stages.2.1.pointwise_conv2'),
    ],
)
@pytest.mark.parametrize('shows_weight', [False, True])
@pytest.mark.parametrize('afterwards', [False, True])
def test_adapters_in_place_of_linear_layers_run(config, name, shows_weight, afterwards):
    class Adapter(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.base_layer = layer
            if shows_weight:
                self.weight, self.bias = layer.weight, layer.bias
                self.in_features, self.out_features = layer.in_features, layer.out_features

        def forward(self, x):
            return 2 * self.base_layer(x)

    model = build(config, keep_ratios=None)
    if afterwards:
        model.prepare_for_inference()
    parent, _, child = name.rpartition('.')
    part = model.get_submodule(parent)
    if child.isdigit():
        part[int(child)] = Adapter(part[int(child)])
    else:
        setattr(part, child, Adapter(getattr(part, child)))
    if not afterwards:
        model.prepare_for_inference()
    maps, expected = prepared_and_plain(model, torch.randn(1, 3, 64, 64))
    assert relative_error(maps, expected) < 1e-5


def test_tracers_see_the_modules(marked, monkeypatch):
    with torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that sizes become constants
            torch.jit.trace(marked, torch.randn(1, 3, 64, 64), strict=False, check_trace=False)
        monkeypatch.setattr('dynsp_mm.prepared.lifetime.is_compiling', lambda: True)
        marked(torch.randn(1, 3, 64, 64))


def test_unprepared_nest_and_concern_one_thread(marked):
    image, seen = torch.randn(1, 3, 64, 64), []

    def other():
        try:
            with torch.no_grad():
                marked(image)
        except Marked:
            seen.append('folded')

    with torch.no_grad(), unprepared():
        with unprepared():
            marked(image)
        marked(image)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()
    assert seen == ['folded'] * 2


def test_replicas_are_plain(marked):
    assert marked.stages[0].blocks[0]._form is not None
    assert marked.stages[0].blocks[0]._replicate_for_data_parallel()._form is None
    assert marked.stages[0].blocks[0]._form is not None


def test_stem_with_another_norm_runs_as_it_is():
    model = build(STVIT)
    model.patch_embed.layers[0].bn = torch.nn.SyncBatchNorm(8).eval()
    model.prepare_for_inference()
    assert model.patch_embed._form is None and model.stages[0].blocks[0]._form is not None


@pytest.mark.parametrize(
    'cfg',
    [
        dict(kernel_size=3, stride=2),
        dict(dilation=2),
        dict(stride=1),
        dict(padding=0),
        dict(use_post_norm=True),
        dict(norm_cfg=None),
    ],
)
def test_other_patch_merging_runs_as_it_is(cfg):
    merging = PatchMerging(8, 16, **{'kernel_size': 2, **cfg}).eval()
    assert not merging.prepare(BACKEND_CLASSES['eager'](torch.device('cpu')))
    x, hw = torch.randn(2, 81, 8), (9, 9)
    assert merging(x, hw)[0].isfinite().all()
