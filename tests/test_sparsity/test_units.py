"""Kinds of spatial sparsity, on blocks and in whole backbones."""

import pytest
import torch
from golden import relative_error
from mmengine.registry import MODELS
from streams import run_block

from dynsp_mm import Decision, record_decisions
from dynsp_mm.errors import UserError
from dynsp_mm.layers import ConvNeXtBlock, SwinBlock, SwinBlockV2
from dynsp_mm.ops import find_backend
from dynsp_mm.prepared import unprepared
from dynsp_mm.sparsity import UNITS, TokenStream, Unit, register_unit, run_blocks
from dynsp_mm.sparsity.units import DENSE

GRID = (8, 9)
SWIN = dict(
    type='DynamicSwin',
    out_indices=(0, 1, 2, 3),
    arch=dict(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 2, 4)),
)
CONVNEXT = dict(
    type='DynamicConvNeXt',
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
    layer_scale_init_value=0.5,
    arch=dict(depths=[2, 2, 4, 2], channels=[16, 16, 32, 40]),
)
BLOCKS = {
    'swin': lambda **kwargs: SwinBlock(16, 2, 4, shift=True, **kwargs),
    'swin_v2': lambda **kwargs: SwinBlockV2(16, 2, 4, extra_norm=True, **kwargs),
    'convnext': lambda **kwargs: ConvNeXtBlock(16, layer_scale_init_value=0.5, **kwargs),
    'convnext_v2': lambda **kwargs: ConvNeXtBlock(16, use_grn=True, **kwargs),
}


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def decisions(batch=2):
    """The same decision as at inference and as in training."""
    keep = torch.rand(batch, GRID[0] * GRID[1]) < 0.4
    slow, fast = keep.flatten().nonzero().squeeze(1), (~keep).flatten().nonzero().squeeze(1)
    scores = keep.float()
    return (
        keep,
        Decision(scores, GRID, 0.4, slow=slow, fast=fast),
        Decision(scores, GRID, 0.4, mask=scores.unsqueeze(-1)),
    )


@pytest.mark.parametrize('unit', ['dual_path', 'skip_block'])
@pytest.mark.parametrize('block', BLOCKS)
def test_training_and_inference_agree(unit, block):
    """Every block in every unit: gathered, masked, and prepared where it has that form."""
    block = randomise(BLOCKS[block](fast_path=UNITS[unit].needs_cheap)).eval()
    keep, chosen, masked = decisions()
    x = torch.randn(2, 72, 16)
    with torch.no_grad():
        gathered = run_block(block, x, GRID, chosen, unit).tokens
        assert relative_error(run_block(block, x, GRID, masked, unit).tokens, gathered) < 1e-5
        if getattr(block, 'grn', None) is None:  # else energies are of the slow positions alone
            dense = run_block(block, x, GRID).tokens
            assert relative_error(gathered[keep], dense[keep]) < 1e-5
        if unit == 'skip_block':
            assert torch.equal(gathered[~keep], x[~keep])
            assert not torch.allclose(gathered[keep], x[keep])
        block.prepare(find_backend('eager', x.device, x.dtype))
        before = x.clone()
        assert relative_error(run_block(block, x, GRID, chosen, unit).tokens, gathered) < 1e-5
        assert torch.equal(x, before)
        owned = run_block(block, x.clone(), GRID, chosen, unit, owned=True).tokens
        assert relative_error(owned, gathered) < 1e-5


@pytest.mark.parametrize('config', [SWIN, CONVNEXT], ids=lambda c: c['type'])
@pytest.mark.parametrize('unit', ['dual_path', 'skip_block'])
@pytest.mark.parametrize('selection', ['topk', 'random', dict(type='threshold', threshold=0.9)])
def test_several_sparse_stages(config, unit, selection):
    model = MODELS.build(
        dict(config, keep_ratios=0.7, prune_stage=(0, 2, 3), unit=unit, selection=selection)
    )
    model.init_weights()
    randomise(model)
    image = torch.randn(2, 3, 75, 64)
    with record_decisions(model) as log:
        sum(m.square().mean() for m in model.train()(image)).backward()
    assert [d.target for d in log.decisions] == [0.7, 0.7, 0.5, 0.3, 0.7]
    assert [p.grad is None for p in model.token_predictors.parameters()] == [
        selection == 'random'
    ] * len(list(model.token_predictors.parameters()))
    fast = [name for name, _ in model.named_parameters() if 'fast_path' in name]
    assert bool(fast) == (unit == 'dual_path')
    model.eval().prepare_for_inference()
    torch.manual_seed(1)
    with torch.no_grad(), record_decisions(model) as log:
        maps = model(image)
        torch.manual_seed(1)
        with unprepared():
            expected = model(image)
    assert all(torch.equal(a.keep, b.keep) for a, b in zip(log.decisions, log.decisions[5:]))
    for a, b in zip(maps, expected):
        assert relative_error(a, b) < 1e-5
    for decision in log.decisions:
        if selection != dict(type='threshold', threshold=0.9):
            count = decision.hw[0] * decision.hw[1]
            assert decision.keep.flatten(1).sum(1).tolist() == [int(count * decision.target)] * 2


def test_skipping_everything_leaves_the_map():
    model = MODELS.build(
        dict(SWIN, keep_ratios=(1e-6,), prune_blocks=(0,), prune_stage=0, unit='skip_block')
    ).eval()
    seen = []
    model.stages[0].register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert torch.equal(*seen[0])


@pytest.fixture
def toy_unit():
    """A kind of sparsity that nobody knew, registered from outside."""

    @register_unit
    class Damp(Unit):
        """Slow positions take the block, of the others half of what it adds."""

        name = 'damp'

        def run(self, block, stream, decision):
            out = DENSE.run(block, stream._replace(owned=False), None).tokens
            if decision.mask is None:
                kept = torch.zeros_like(decision.scores)
                kept.view(-1)[decision.slow] = 1
                kept = kept.unsqueeze(-1)
            else:
                kept = decision.mask
            share = (1 + kept) / 2
            return stream._replace(tokens=stream.tokens + share * (out - stream.tokens))

    yield Damp
    del UNITS['damp']


@pytest.mark.parametrize('config', [SWIN, CONVNEXT], ids=lambda c: c['type'])
def test_a_new_unit_needs_its_class_alone(config, toy_unit):
    model = MODELS.build(dict(config, keep_ratios=0.7, unit='damp', prune_stage=(1, 2)))
    model.init_weights()
    with record_decisions(model.train()) as log:
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
    assert len(log) == 4 and model.token_predictors[0].proj.weight.grad is not None
    assert not [name for name, _ in model.named_parameters() if 'fast' in name]
    model.eval().prepare_for_inference()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        prepared = model(image)
        with unprepared():
            plain = model(image)
        model.keep_ratios = 1.0
        model.discard_prepared()
        whole = model(image)
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(prepared, plain))
    assert relative_error(whole[3], plain[3]) > 1e-3


def test_a_unit_that_hands_its_stream_on_leaves_the_input():
    """What nobody made is nobody's to write into."""

    class Pass(Unit):
        def run(self, block, stream, decision):
            return stream

    stage = MODELS.build(dict(SWIN)).eval().prepare_for_inference('eager').stages[0]
    tokens = torch.randn(1, 64, 16)
    before = tokens.clone()

    class Passing(torch.nn.Module):
        def forward(self, stream, unit, decision):
            return Pass().run(None, stream, decision)

    first, second = stage.blocks
    first.forward = lambda stream, unit, decision: Pass().run(first, stream, decision)
    with torch.no_grad():
        run_blocks([first, second], TokenStream(tokens, (8, 8)))
        run_blocks([Passing(), second], TokenStream(tokens, (8, 8)))
    assert torch.equal(tokens, before)


def test_what_is_no_unit():
    with pytest.raises(UserError, match='unit int: must inherit from Unit'):
        register_unit(int)


def test_names_of_units_are_their_own(toy_unit):
    for name in ('damp', '', 'dual_path'):
        with pytest.raises(UserError, match=f"unit='{name}' of Other: must be a name of its own"):
            register_unit(type('Other', (Unit,), dict(name=name)))


def test_a_unit_that_cannot_serve_a_mixer():
    class PositionsOnly(Unit):
        name = 'positions_only'
        localities = ('position',)

    with pytest.raises(
        UserError,
        match=r"unit='positions_only' in block 3 of stage 1: SwinBlock mixes by window; the unit "
        'needs a block that mixes by position',
    ):
        PositionsOnly().check(SwinBlock(16, 2), 'block 3 of stage 1')


def test_streams_are_merged_by_the_last_decision():
    _, _, masked = decisions()
    slow, fast = torch.randn(2, 2, 72, 4)
    merged = TokenStream(slow, GRID, fast=fast).merged(masked)
    assert torch.equal(merged, torch.where(masked.mask.bool(), slow, fast))
