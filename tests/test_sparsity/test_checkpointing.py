"""Activation checkpointing that mmengine is asked for is done with ``with_cp``."""

import copy

import pytest
import torch
from logs import warnings_of
from mmengine.registry import MODELS
from mmengine.runner import turn_on_activation_checkpointing
from toys import SWIN

from dynsp_mm.compat import checkpointed_forward
from dynsp_mm.layers import Block
from dynsp_mm.recording import record_decisions

CONVNEXT = dict(
    type='DynamicConvNeXt',
    keep_ratios=0.7,
    arch=dict(depths=(1, 1, 4, 1), channels=(8, 16, 32, 64)),
)
STVIT = dict(
    type='STViTSwin', arch=dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))
)
PLACES = [
    (SWIN, 'stages.2'),
    (SWIN, 'stages.2.blocks.1'),
    (SWIN, 'stages.2.blocks.1.ffn'),
    (SWIN, 'token_predictors.0'),
    ({**SWIN, 'mixing': 'two_stream'}, 'stages.2.blocks.2'),
    ({**SWIN, 'keep_ratios': None}, 'stages.2.blocks.1'),
    (CONVNEXT, 'stages.2'),
    (CONVNEXT, 'stages.2.1'),
    (CONVNEXT, 'norm3'),
    (STVIT, 'stages.2'),
]


def trained(config, places):
    """Gradients of all parameters, of the maps and of the decisions."""
    torch.manual_seed(0)
    backbone = MODELS.build(config)
    if places:
        turn_on_activation_checkpointing(backbone, places)
    backbone.train()
    torch.manual_seed(1)
    with record_decisions(backbone) as log:
        loss = backbone(torch.randn(2, 3, 64, 64))[-1].square().mean()
        loss = loss + sum(decision.mask.square().mean() for decision in log.decisions)
        loss.backward()
    return {name: parameter.grad for name, parameter in backbone.named_parameters()}


@pytest.mark.parametrize('config,place', PLACES)
def test_gradients_are_those_without_it(config, place):
    plain, again = trained(config, None), trained(config, place)
    assert [name for name in plain if plain[name] is None] == [
        name for name in again if again[name] is None
    ]
    for name, grad in plain.items():
        if grad is not None:
            torch.testing.assert_close(again[name], grad, msg=name)


def checkpointed(backbone):
    return [name for name, m in backbone.named_modules() if isinstance(m, Block) and m.with_cp]


@pytest.mark.parametrize(
    'place,blocks', [('stages.2', 4), ('stages', 7), ('stages.2.blocks.1', 1), ('stages.0', 1)]
)
def test_the_blocks_there_recompute_and_it_is_said(place, blocks):
    backbone = MODELS.build(SWIN)
    turn_on_activation_checkpointing(backbone, place)
    with warnings_of() as said:
        backbone.train()
        backbone.train()
    names = checkpointed(backbone)
    assert len(names) == blocks and all(name.startswith(place) for name in names)
    (text,) = said
    assert f'activation_checkpointing of {place} is done as with_cp=True' in text
    assert not any(checkpointed_forward(module) for module in backbone.modules())


def test_a_run_wraps_again():
    backbone = MODELS.build(SWIN)
    for _ in range(2):
        turn_on_activation_checkpointing(backbone, ['stages.2', 'stages.2.blocks.1'])
    backbone.train()
    assert not any('forward' in vars(module) for module in backbone.modules())


def test_a_forward_of_ones_own_stays():
    backbone = MODELS.build(SWIN)
    block, calls = backbone.stages[2].blocks[1], []
    run = block.forward
    block.forward = lambda *args: calls.append(1) or run(*args)
    turn_on_activation_checkpointing(backbone, 'stages.2.blocks.1')
    backbone.train()(torch.randn(1, 3, 64, 64))
    assert calls == [1]


def test_copies_run_their_own_forward():
    backbone = MODELS.build(SWIN)
    turn_on_activation_checkpointing(backbone, 'stages.2')
    copied = copy.deepcopy(backbone).train()
    assert 'forward' in vars(backbone.stages[2]) and 'forward' not in vars(copied.stages[2])
    assert copied.stages[2].forward.__self__ is copied.stages[2]
