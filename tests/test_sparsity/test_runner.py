"""Which predictors sample their decisions in training."""

import torch
from mmengine.registry import MODELS
from mmengine.runner import turn_on_activation_checkpointing
from toys import SWIN

from dynsp_mm.recording import record_decisions


def build(**arguments):
    return MODELS.build({**SWIN, **arguments}).train()


def sampled(backbone):
    with record_decisions(backbone) as log:
        backbone(torch.randn(2, 3, 64, 64))
    return [decision.mask is not None for decision in log.decisions]


def test_those_that_are_trained_sample():
    backbone = build()
    assert sampled(backbone) == [True] * 3
    backbone.token_predictors[1].requires_grad_(False)
    for mixing in ('merged', 'two_stream'):
        backbone.mixing = mixing
        assert sampled(backbone) == [True, False, True]
    backbone.token_predictors[1].head[-1].bias.requires_grad = True
    assert sampled(backbone) == [True] * 3


def test_without_gradients_none_does():
    with torch.no_grad():
        assert sampled(build()) == [False] * 3


def test_checkpointed_stages_decide_alike_in_both_runs():
    """With ``activation_checkpointing`` a stage runs without gradients first."""
    image = torch.randn(2, 3, 64, 64)
    grads = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        backbone = build()
        if checkpointed:
            turn_on_activation_checkpointing(backbone, 'stages.2')
        torch.manual_seed(1)
        out = backbone(image)[-1]
        out.square().mean().backward()
        grads.append([p.grad for p in (*backbone.parameters(), torch.nn.Parameter(out))])
    for plain, again in zip(*grads):
        assert (plain is None) == (again is None)
        if plain is not None:
            torch.testing.assert_close(plain, again)
