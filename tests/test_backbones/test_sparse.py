"""Properties of every registered backbone when it is sparse."""

import copy

import pytest
import torch
from golden import relative_error
from mmengine.registry import MODELS
from properties import AUTOCAST_DTYPES, backward_through, check_dtype, check_nan_stays_in_its_image
from streams import run_block

from dynsp_mm import Decision, DynamicConvNeXt, DynamicSwin, DynamicSwinV2, record_decisions
from dynsp_mm.sparsity.decision import TokenStream
from dynsp_mm.sparsity.units import UNITS

ALL = (0, 1, 2, 3)
SWIN = dict(arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)))
SWIN_V2 = dict(arch=dict(SWIN['arch'], extra_norm_every_n_blocks=0))
CONVNEXT = dict(
    arch=dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128)),
    gap_before_final_norm=False,
    layer_scale_init_value=1.0,
)
SMALL = {
    'swin': (DynamicSwin, SWIN),
    'swin_mmdet_style': (DynamicSwin, SWIN['arch']),
    'swin_v2': (DynamicSwinV2, SWIN_V2),
    'convnext': (DynamicConvNeXt, CONVNEXT),
    'convnext_v2': (DynamicConvNeXt, {**CONVNEXT, 'use_grn': True, 'layer_scale_init_value': 0.0}),
}
THRESHOLD = dict(type='threshold', threshold=0.5)


def build(name, **kwargs):
    cls, args = SMALL[name]
    model = cls(
        **{
            'keep_ratios': (0.7, 0.5, 0.3),
            'out_indices': ALL,
            'drop_path_rate': 0.0,
            **args,
            **kwargs,
        }
    )
    # Predictors that tell positions apart, so that selections are not degenerate.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for predictor in model.token_predictors:
            for layer in (predictor.proj, *predictor.head[::2]):
                layer.weight.mul_(8)
            predictor.head[-1].bias.zero_()
    return model


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


SIZES = [(32, 32), (33, 65), (64, 100), (127, 224)]


@pytest.mark.parametrize('selection', ['topk', THRESHOLD], ids=['topk', 'threshold'])
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('batch', [1, 2, 3])
def test_any_size_and_batch(name, selection, size, batch):
    """An image's maps do not depend on its neighbours in the batch."""
    model = build(name, selection=selection).eval()
    image = torch.randn(batch, 3, *size)
    with torch.no_grad(), record_decisions(model) as log:
        together = model(image)
    assert [m.shape[1] for m in together] == [16, 32, 64, 128]
    for decision, ratio in zip(log.decisions, (0.7, 0.5, 0.3)):
        count = decision.hw[0] * decision.hw[1]
        assert decision.keep.shape == (batch, *decision.hw)
        if selection == 'topk':
            assert decision.keep.flatten(1).sum(1).tolist() == [int(count * ratio)] * batch
        else:
            assert torch.equal(decision.keep.flatten(1), decision.scores.exp() >= 0.5)
    with torch.no_grad():
        for i in range(batch):
            for whole, alone in zip(together, model(image[i : i + 1])):
                assert relative_error(whole[i : i + 1], alone) < 1e-5


def test_ragged_budgets_differ(name):
    model = build(name, selection=THRESHOLD).eval()
    image = torch.randn(3, 3, 96, 96) * torch.tensor([0.1, 1.0, 3.0]).view(3, 1, 1, 1)
    with torch.no_grad(), record_decisions(model) as log:
        model(image)
    ratios = torch.stack([decision.keep_ratio for decision in log.decisions])
    assert (ratios.amax(1) > ratios.amin(1)).any()


def decisive(model):
    """Predictors that disagree about positions: decisions change from one to the next."""
    model.selection = type(model.selection)('threshold', 0.5)
    return model


@pytest.mark.parametrize('with_cp', [False, True])
def test_merged_training_computes_what_inference_does(name, with_cp, deterministic_gumbel):
    """One map in training: equal to inference for the same, changing, decisions."""
    image = torch.randn(2, 3, 64, 96)
    model = decisive(build(name, mixing='merged', with_cp=with_cp))
    with torch.no_grad(), record_decisions(model) as log:
        inferred = model.eval()(image)
    keeps = [decision.keep for decision in log.decisions]
    assert (keeps[0] != keeps[1]).any() and (keeps[1] != keeps[2]).any()
    with record_decisions(model) as log:
        trained = model.train()(image)
    for decision, keep in zip(log.decisions, keeps):
        assert torch.equal(decision.keep, keep)
    for a, b in zip(trained, inferred):
        assert relative_error(a, b) < 1e-5
    trained[3].square().mean().backward()
    for part in (*model.token_predictors, model.stages[2]):
        for key, parameter in part.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    # Decisions learn: through what either path would have added.
    assert all(p.proj.weight.grad.abs().sum() > 0 for p in model.token_predictors)


def test_merged_training_drops_paths(name):
    """Stochastic depth acts on what both paths add."""
    model = build(name, mixing='merged', drop_path_rate=0.9).train()
    block = model.stages[2][3] if 'convnext' in name else model.stages[2].blocks[3]
    block.drop_path.drop_prob = 1 - 1e-9  # mmcv's has no other end: each sample is dropped
    tokens, mask = torch.randn(2, 16, 64), torch.ones(2, 16, 1)
    decision = Decision(mask[..., 0], (4, 4), 1.0, mask=mask)
    assert torch.equal(run_block(block, tokens, (4, 4), decision).tokens, tokens)


@pytest.mark.parametrize('unit', ['dual_path', 'skip_block'])
def test_training_under_frozen_predictors_drops_paths(name, unit):
    """In the form that inference takes; an image loses what is added everywhere or nowhere."""
    model = build(name, unit=unit, drop_path_rate=0.9).train()
    block = model.stages[2][3] if 'convnext' in name else model.stages[2].blocks[3]
    tokens, keep = torch.randn(8, 16, 64), torch.arange(8 * 16) % 3 == 0
    slow, fast = (chosen.nonzero().squeeze(1) for chosen in (keep, ~keep))
    decision = Decision(torch.zeros(8, 16), (4, 4), 0.5, slow=slow, fast=fast)

    def run(rate):
        block.drop_path.drop_prob = rate
        stream = TokenStream(tokens, (4, 4))
        return UNITS[unit].run(block, stream, decision).tokens

    assert torch.equal(run(1 - 1e-9), tokens)
    block.mix = lambda x, *place: (x, None)  # no stochastic depth of its own
    changed = (run(0.5) != tokens).any(-1).flatten()
    for image in range(8):
        rows = slow if unit == 'skip_block' else torch.arange(8 * 16)
        rows = rows[rows // 16 == image]
        assert changed[rows].all() or not changed[rows].any()
    assert changed.any() and not changed[slow].all()


def test_two_streams_compute_something_else_once_decisions_change(name, deterministic_gumbel):
    image = torch.randn(2, 3, 64, 96)
    model = decisive(build(name, mixing='two_stream'))
    trained, inferred = model.train()(image), model.eval()(image)
    assert relative_error(trained[3], inferred[3]) > 1e-4


def test_random_selection(name):
    """In training and at inference: as many positions as top-k, others each time, in each image."""
    model, image = build(name, selection='random'), torch.randn(2, 3, 128, 128)
    image[1] = image[0]
    seen = []
    for mode in (True, False, True, False):
        with record_decisions(model) as log:
            maps = model.train(mode)(image)
        for decision, ratio in zip(log.decisions, (0.7, 0.5, 0.3)):
            assert decision.keep.flatten(1).sum(1).tolist() == [int(64 * ratio)] * 2
            assert (decision.mask is not None) == mode
            assert not torch.equal(decision.keep[0], decision.keep[1])
        seen.append(log.decisions[0].keep)
    assert len({tuple(keep.flatten().tolist()) for keep in seen}) == 4
    # Predictors are there, so that checkpoints are the same, but do not train.
    assert len(model.token_predictors) == 3
    assert not any(p.requires_grad for p in model.token_predictors.parameters())
    model.train()(image)[3].sum().backward()
    fast = model.stages[2][1] if 'convnext' in name else model.stages[2].blocks[1]
    assert fast.fast_path.linear.weight.grad.abs().sum() > 0
    assert maps[3].isfinite().all()


def test_random_selection_follows_the_seed(name):
    model, image = build(name, selection='random').eval(), torch.randn(1, 3, 64, 64)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(image)[3])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def test_fast_path_everywhere(name):
    """A ratio too small for a single position keeps none."""
    model = build(name, selection='random', keep_ratios=(1e-6,) * 3)
    with record_decisions(model) as log:
        model.train()(torch.randn(1, 3, 64, 64))
        maps = model.eval()(torch.randn(1, 3, 64, 64))
    assert len(log) == 6 and not any(decision.keep.any() for decision in log.decisions)
    assert maps[3].isfinite().all()


@pytest.mark.parametrize('keep', [0.0, 1.0])
def test_training_and_inference_agree_while_decisions_stand(name, keep):
    """Two streams and gathering are the same network when all predictors decide alike."""
    model = build(name)
    shift = 1000.0 if keep else -1000.0
    with torch.no_grad():
        for predictor in model.token_predictors:
            predictor.head[-1].bias.copy_(torch.tensor([shift, -shift]))
    model.selection = type(model.selection)('threshold', 0.5)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        trained, inferred = model.train()(image), model.eval()(image)
    for a, b in zip(trained, inferred):
        assert relative_error(a, b) < 1e-5


def test_training_and_inference_agree_on_one_mixed_decision(name, deterministic_gumbel):
    """With a single predictor the decision cannot change, so the forms agree on any mask."""
    model = build(name, keep_ratios=(0.5,), prune_blocks=(1,), selection=THRESHOLD)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad(), record_decisions(model) as log:
        model.token_predictors[0].head[-1].weight.mul_(0.05)  # scores short of saturation
        model.eval()(image)
        middle = log[0].decision.scores.exp().logit().median()
        model.token_predictors[0].head[-1].bias -= torch.stack([middle, -middle]) / 2
        log.clear()
        trained = model.train()(image)
        inferred = model.eval()(image)
    assert torch.equal(log[0].decision.keep, log[1].decision.keep)
    assert 0 < log[0].decision.keep.float().mean() < 1
    for a, b in zip(trained, inferred):
        assert relative_error(a, b) < 1e-5


def test_gradient_reaches_each_parameter(name):
    model = build(name).train()
    with torch.no_grad():  # nearly fair coins: both paths are taken whatever the seed
        for predictor in model.token_predictors:
            predictor.head[-1].weight.mul_(0.05)
    sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 96))).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, (
            f'no gradient for {key}'
        )


@pytest.mark.parametrize('mode', [True, False], ids=['train', 'eval'])
def test_checkpointing_changes_nothing(name, mode, deterministic_gumbel, monkeypatch):
    calls, checkpoint = [], torch.utils.checkpoint.checkpoint

    def counted(*args, **kwargs):
        calls.append(args)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', counted)
    plain, image = build(name).train(mode), torch.randn(2, 3, 64, 64)
    cls, args = SMALL[name]
    saving = cls(
        **{
            'keep_ratios': (0.7, 0.5, 0.3),
            'out_indices': ALL,
            'drop_path_rate': 0.0,
            **args,
            'with_cp': True,
        }
    ).train(mode)
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for model in (plain, saving):
        sum(m.square().mean() for m in model(image)).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    assert len(calls) == 7  # each block of the saving model, none of the plain one
    assert gradients[0].keys() == gradients[1].keys()
    for key in gradients[0]:
        torch.testing.assert_close(gradients[0][key], gradients[1][key])


def test_stochastic_depth(name):
    """Rates rise linearly to the last block, and dense and two-stream blocks obey theirs."""
    model = build(name, drop_path_rate=0.6).train()
    blocks = [block for stage in model.stages for block in getattr(stage, 'blocks', stage)]
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
    assert rates == pytest.approx([0.6 * k / 6 for k in range(7)])
    tokens = torch.randn(
        64,
        16,
        model.stages[2][1].norm.normalized_shape[0] if hasattr(model, 'downsample_layers') else 64,
    )
    block = blocks[3]
    mask = (torch.rand(64, 16, 1) < 0.5).float()
    block.drop_path.drop_prob = 0.999999
    decision = Decision(mask[..., 0], (4, 4), 0.5, mask=mask)
    stream = run_block(block, tokens, (4, 4), decision, fast=tokens + 1)
    merged = mask * tokens + (1 - mask) * (tokens + 1)
    kept = (merged, merged) if 'swin' in name else (tokens, tokens + 1)
    torch.testing.assert_close(stream.tokens, kept[0])
    torch.testing.assert_close(stream.fast, kept[1])
    torch.testing.assert_close(run_block(block, tokens, (4, 4)).tokens, tokens)


@pytest.mark.parametrize('how', ['scratch', 'list', 'pretrained'])
def test_initialised_to_start_by_keeping(name, how, tmp_path):
    cls, args = SMALL[name]
    args = dict(args, out_indices=ALL)
    init_cfg = None
    if how == 'list':
        init_cfg = [dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.5, bias=0.3)]
    elif how == 'pretrained':
        torch.save(cls(**args).state_dict(), tmp_path / 'dense.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'dense.pth'))
    model = cls(**args, keep_ratios=(0.7, 0.5, 0.3), init_cfg=init_cfg)
    model.init_weights()
    for predictor in model.token_predictors:
        assert predictor.head[-1].bias.tolist() == [1.5, -1.5]
        assert predictor.proj.weight.std() < 0.03
    with record_decisions(model.train()) as log:
        model(torch.randn(2, 3, 128, 128))
    assert all(decision.keep_ratio.mean() > 0.8 for decision in log.decisions)
    if name == 'swin' and how == 'scratch':
        table = model.stages[2].blocks[1].attn.w_msa.relative_position_bias_table
        assert 0.01 < table.std() < 0.03
    # A second call keeps the weights, as mmengine's modules do.
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_epsilons(name):
    """Golden files cannot see them all: 1e-5 in Swin, 1e-6 in ConvNeXt (as in the releases)."""
    model = build(name)
    expected = 1e-5 if 'swin' in name else 1e-6
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) > 10 and {norm.eps for norm in norms} == {expected}


def test_dropout_of_swin_acts_in_training():
    args = dict(SWIN['arch'], keep_ratios=(0.7, 0.5, 0.3), drop_path_rate=0.0)
    model = DynamicSwin(**args, drop_rate=0.5)
    path = model.stages[2].blocks[1].fast_path.train()
    assert (path(torch.randn(10, 64)) == 0).float().mean() > 0.3
    attention = DynamicSwin(**args, attn_drop_rate=0.5).stages[0].blocks[0].attn
    tokens = torch.randn(1, 49, 16)
    assert not torch.equal(attention.train()(tokens, (7, 7)), attention(tokens, (7, 7)))
    assert torch.equal(attention.eval()(tokens, (7, 7)), attention(tokens, (7, 7)))


def test_norm_eval():
    args = dict(SWIN, norm_cfg=dict(type='BN'), out_indices=(3,))
    for norm_eval in (True, False):
        model = DynamicSwin(**args, norm_eval=norm_eval).train()
        assert model.norm3.training != norm_eval and model.stages.training


@pytest.mark.parametrize('dtype', AUTOCAST_DTYPES)
@pytest.mark.parametrize('mode', [True, False], ids=['train', 'eval'])
def test_autocast(name, dtype, mode):
    """Maps stay close to float32's: low precision may move a few positions between paths."""
    model, image = build(name).train(mode), torch.randn(2, 3, 64, 96)
    maps = backward_through(model, image, dtype)
    if not mode:
        with torch.no_grad():
            exact = model(image)
        for low, full in zip(maps[:2], exact[:2]):  # before any decision
            assert relative_error(low.float(), full) < 0.1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_whole_model_in_another_dtype(name, dtype):
    check_dtype(build(name), dtype)


def test_frozen_sparse_stage_decides_as_at_inference(name):
    # Both count up to and including the sparse stage, index 2.
    model = build(name, frozen_stages=2 if name in ('swin', 'swin_v2') else 3).train()
    with record_decisions(model) as log:
        maps = model(torch.randn(2, 3, 64, 64))
    assert all(decision.mask is None for decision in log.decisions)
    maps[3].sum().backward()
    assert all(p.grad is None for p in model.token_predictors.parameters())
    assert any(p.grad is not None for p in model.parameters())


def test_nan_in_one_image_stays_there(name):
    check_nan_stays_in_its_image(build(name))


def test_keep_ratios_may_be_set_later(name):
    model, image = build(name).eval(), torch.randn(1, 3, 64, 64)
    model.keep_ratios = 0.9
    assert model.keep_ratios == (0.9, 0.7, 0.5)
    with record_decisions(model) as log:
        model(image)
    assert [int(d.keep.sum()) for d in log.decisions] == [14, 11, 8]
    model.keep_ratios = 1.0
    with record_decisions(model) as log:
        model(image)
    assert all(d.keep.all() for d in log.decisions)
    with pytest.raises(ValueError, match='built dense'):
        build(name, keep_ratios=None).keep_ratios = 0.7


def test_copies_and_state_dicts(name):
    model, image = build(name).eval(), torch.randn(1, 3, 64, 64)
    twin = copy.deepcopy(model)
    other = build(name)
    other.load_state_dict(model.state_dict(), strict=True)
    expected = model(image)[3]
    assert torch.equal(twin(image)[3], expected)
    assert torch.equal(other.eval()(image)[3], expected)
    assert not any('index' in key or 'mask' in key for key in model.state_dict())


@pytest.mark.parametrize('type_', ['DynamicSwin', 'DynamicSwinV2', 'DynamicConvNeXt'])
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_registered_for_all_libraries(type_, scope):
    import importlib

    registry = importlib.import_module(f'{scope}.registry').MODELS
    model = registry.build(dict(type=type_, arch='tiny', keep_ratios=0.7))
    assert type(model) is MODELS.get(type_)
    assert model.keep_ratios == (0.7, 0.5, 0.3)


ARCHS = [('DynamicSwin', a) for a in ('tiny', 'small', 'base', 'large')] + [
    ('DynamicConvNeXt', a) for a in ('tiny', 'small', 'base', 'large', 'xlarge')
]
PRUNE_BLOCKS = {
    ('DynamicSwin', 'tiny'): (1, 2, 3),
    ('DynamicSwin', 'other'): (2, 4, 6),
    ('DynamicConvNeXt', 'tiny'): (1, 2, 3),
    ('DynamicConvNeXt', 'other'): (3, 6, 9),
}


@pytest.mark.parametrize('type_,arch', ARCHS)
def test_every_arch_runs(type_, arch):
    with torch.device('cpu'):
        model = MODELS.build(dict(type=type_, arch=arch, keep_ratios=0.7, out_indices=ALL)).eval()
    assert model.plan.blocks(2) == PRUNE_BLOCKS.get((type_, arch), PRUNE_BLOCKS[type_, 'other'])
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 64, 64)) if type_ == 'DynamicSwin' else None
        if maps is None:
            model.gap_before_final_norm = False
            maps = model(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert all(m.isfinite().all() for m in maps)
