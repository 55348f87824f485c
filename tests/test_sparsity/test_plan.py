"""The arguments of spatial sparsity, read once for every family."""

import copy

import pytest

from dynsp_mm.errors import UserError
from dynsp_mm.layers import ConvNeXtBlock
from dynsp_mm.sparsity import SparsityPlan, parse_keep_ratios

DEPTHS = (2, 2, 18, 2)


def places(plan):
    return [(gate.stage, gate.block, gate.ratio) for gate in plan.gates]


def test_dense():
    for keep_ratios in (None, 1, 1.0):
        plan = SparsityPlan.parse((1, 1), keep_ratios, prune_stage=0)
        assert plan.gates == () and plan.keep_ratios is None and plan.stages == ()
        assert plan.unit_of(0, 0) is None and not plan.needs_fast_path(0, 0)
        assert plan.schedule(0, []).sites == {}


def test_one_stage():
    plan = SparsityPlan.parse(DEPTHS, 0.7)
    assert places(plan) == [(2, 2, 0.7), (2, 4, 0.5), (2, 6, 0.3)]
    assert plan.stages == (2,) and plan.blocks(2) == (2, 4, 6) and plan.blocks(1) == ()
    assert [plan.needs_fast_path(2, block) for block in (0, 1, 2, 17)] == [False, False, True, True]
    assert not plan.needs_fast_path(1, 1)
    plan = SparsityPlan.parse(DEPTHS, (0.9, 0.2), 3, (0, 1))
    assert places(plan) == [(3, 0, 0.9), (3, 1, 0.2)]


def test_several_stages():
    plan = SparsityPlan.parse(DEPTHS, 0.7, prune_stage=(1, 2, 3))
    assert places(plan) == [(1, 1, 0.7), (2, 2, 0.7), (2, 4, 0.5), (2, 6, 0.3), (3, 1, 0.7)]
    assert plan.keep_ratios == (0.7, 0.7, 0.5, 0.3, 0.7)
    blocks = ((0, 1), None)
    plan = SparsityPlan.parse(DEPTHS, ((0.9, 0.8), 0.6), [1, 2], blocks)
    assert places(plan) == [(1, 0, 0.9), (1, 1, 0.8), (2, 2, 0.6), (2, 4, 0.4), (2, 6, 0.2)]
    plan = SparsityPlan.parse(DEPTHS, (0.5, 0.4, 0.9, 0.8, 0.7), (1, 2), blocks)
    assert plan.keep_ratios == (0.5, 0.4, 0.9, 0.8, 0.7)  # each stage begins anew
    plan.keep_ratios = 0.8
    assert plan.keep_ratios == (0.8, 0.6, 0.8, 0.6, 0.4)
    plan.keep_ratios = 1.0
    assert plan.keep_ratios == (1.0,) * 5
    plan = SparsityPlan.parse(DEPTHS, (1.0, 0.5), (1, 3))  # one predictor each
    assert plan.keep_ratios == (1.0, 0.5)
    plan = SparsityPlan.parse(DEPTHS, ((0.7,), 1.0, None), (1, 2, 3))  # whole stages that keep all
    assert plan.keep_ratios == (0.7, 1.0, 1.0, 1.0, 1.0)
    assert SparsityPlan.parse(DEPTHS, ((0.7, 0.5, 0.3),), [2]).keep_ratios == (0.7, 0.5, 0.3)
    plan = SparsityPlan.parse(DEPTHS, 0.7, prune_stage=(1, 2), prune_blocks=((0, 1), None))
    assert list(plan.schedule(2, range(5)).sites) == [2, 4, 6]
    assert [site.predictor for site in plan.schedule(2, range(5)).sites.values()] == [2, 3, 4]
    assert plan.predictors_of(1, range(5)) == [0, 1]


def test_a_shallow_stage_of_several_has_a_predictor():
    assert places(SparsityPlan.parse((1, 1, 6, 1), 0.7, (0, 2)))[0] == (0, 0, 0.7)


@pytest.mark.parametrize(
    'arguments,message',
    [
        (dict(prune_stage=()), r'prune_stage=\(\): must be ascending indices, one or more'),
        (dict(prune_stage=(2, 1)), r'prune_stage=\(2, 1\): must be ascending indices'),
        (dict(prune_stage=(1, 4)), r'=\(1, 4\): must be the index of a stage, 0 .. 3, or'),
        (dict(prune_stage=True), 'prune_stage=True: must be the index'),
        (dict(prune_stage=(1, 2), prune_blocks=((1,), (18,))), 'block 18 is beyond'),
        (dict(prune_stage=(1, 2), prune_blocks=((1,),)), r'for each of the 2 sparse stages'),
        (dict(prune_stage=(1, 2), keep_ratios=(0.5, 0.4)), 'each of the 4 predictors of 2 stages'),
        (dict(prune_stage=(1, 2), keep_ratios=((0.5,),)), 'each of the 2 sparse stages; got 1'),
        (dict(prune_stage=(1, 2), keep_ratios=((0.5,), (0.4, 0.5, 0.3))), 'must not increase'),
        (dict(prune_stage=(1, 2), keep_ratios=0.3), r'keep_ratios=0.3: one number r stands for'),
        (dict(unit='cut'), "unit='cut': must be one of dual_path, skip_block"),
        (dict(unit='skip_block', mixing='two_stream'), "unit='skip_block' has one map"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        SparsityPlan.parse(DEPTHS, **{'keep_ratios': 0.7, **arguments})


def test_a_dense_plan_takes_no_ratios():
    with pytest.raises(UserError, match='built dense'):
        SparsityPlan().keep_ratios = 0.7


def test_a_family_says_what_one_number_means():
    plan = SparsityPlan.parse(DEPTHS, 0.7, rule='geometric')
    assert plan.keep_ratios == (0.7, 0.49, 0.343)
    plan.keep_ratios = 0.3
    assert plan.keep_ratios == (0.3, 0.09, 0.027)
    with pytest.raises(UserError, match=r'=1.5: .* r \*\* \(k \+ 1\) .* lie in \(0, 1\]'):
        SparsityPlan.parse(DEPTHS, 1.5, rule='geometric')


def test_single_numbers_are_rounded():
    assert parse_keep_ratios(0.7, [3]) == (0.7, 0.5, 0.3)


def test_blocks_that_a_unit_cannot_serve():
    plan = SparsityPlan.parse((2,), 0.7, 0, (1,))
    with pytest.raises(UserError, match="unit='dual_path' in block 1 of stage 0: .* no fast path"):
        plan.check(0, [ConvNeXtBlock(8), ConvNeXtBlock(8)])
    plan.check(0, [ConvNeXtBlock(8), ConvNeXtBlock(8, fast_path=True)])


def test_ratios_on_their_way_leave_the_targets():
    plan = SparsityPlan.parse((1, 1, 4, 1), keep_ratios=0.7)
    plan.anneal((1.0, 0.9, 0.8))
    assert plan.keep_ratios == (1.0, 0.9, 0.8) and plan.targets == (0.7, 0.5, 0.3)
    assert copy.deepcopy(plan).targets == (0.7, 0.5, 0.3)
    plan.keep_ratios = 0.8
    assert plan.targets == plan.keep_ratios == (0.8, 0.6, 0.4)
    assert SparsityPlan().targets is None
