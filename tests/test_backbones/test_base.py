"""What a backbone says of predictors that nobody trained."""

import copy
import warnings

import pytest
import torch
from logs import warnings_of
from mmengine.registry import MODELS
from toys import SWIN

from dynsp_mm.analysis import count_macs
from dynsp_mm.recording import record_decisions

IMAGE = torch.zeros(1, 3, 64, 64)


def build(**arguments):
    return MODELS.build({**SWIN, **arguments})


def trained(backbone):
    for part in backbone.parts_at_start().values():
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def said_by(backbone, forwards=2):
    with warnings_of() as said:
        for _ in range(forwards):
            backbone(IMAGE)
    return said


def test_predictors_as_drawn_are_named_once_at_inference():
    (text,) = said_by(build().eval())
    assert 'DynamicSwin: 3 token predictors (token_predictors.0, ' in text
    assert '3 fast paths (stages.2.blocks.1.fast_path, ' in text and 'never trained' in text
    assert 'load a sparse checkpoint' in text
    backbone = trained(build())
    backbone.token_predictors[1].reset_parameters()
    (text,) = said_by(backbone.eval())
    assert '1 token predictor (token_predictors.1) were never trained' in text


@pytest.mark.parametrize(
    'backbone',
    [
        lambda: trained(build()).eval(),
        lambda: trained(build(frozen_stages=3)).train(),
        lambda: build(selection='random').eval(),
        lambda: build(selection='random').train(),
        lambda: build(keep_ratios=None).eval(),
        lambda: copy.deepcopy(trained(build())).bfloat16().float().eval(),
    ],
)
def test_no_word_where_all_is_well(backbone):
    assert said_by(backbone()) == []


def test_frozen_and_new_in_training_without_the_hook():
    (text,) = said_by(build(frozen_stages=3).train())
    assert 'are new and frozen' in text and 'random' in text


def test_frozen_copies_need_nobody_that_holds_their_ratio():
    assert said_by(trained(build()).requires_grad_(False).train()) == []


def test_values_are_not_looked_at_while_others_trace():
    backbone = build().eval()
    with warnings_of() as said:
        count_macs(backbone, IMAGE)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            torch.jit.trace(backbone, IMAGE, check_trace=False)
        torch.export.export(backbone, (IMAGE,), strict=False)
        copy.deepcopy(backbone).to('meta')(IMAGE.to('meta'))
    assert said == []
    assert len(said_by(backbone)) == 1


FROZEN = [
    dict(type='DynamicSwin', embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)),
    dict(SWIN, use_abs_pos_embed=True),
    dict(
        type='DynamicSwinV2', keep_ratios=0.7, arch=dict(SWIN['arch'], extra_norm_every_n_blocks=0)
    ),
    dict(type='STViTSwin', arch=dict(SWIN['arch'], depths=(1, 1, 6, 1))),
    dict(
        type='DynamicConvNeXt',
        keep_ratios=0.7,
        gap_before_final_norm=False,
        arch=dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128)),
    ),
]


@pytest.mark.parametrize('config', FROZEN, ids=lambda config: config['type'])
@pytest.mark.parametrize('frozen', [0, 1, 2])
def test_frozen_when_built(config, frozen):
    """Distributed wrappers note once, before ``train()``, what has gradients."""

    def trainable():
        return {name for name, p in backbone.named_parameters() if p.requires_grad}

    backbone = MODELS.build(dict(config, frozen_stages=frozen, out_indices=(0, 1, 2, 3)))
    before = trainable()
    backbone.train()
    assert trainable() == before
    stages = tuple(f'stages.{i}.' for i in range(backbone.num_frozen))
    assert not any(name.startswith(stages) for name in before if stages)
    sum(out.mean() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert {name for name, p in backbone.named_parameters() if p.grad is not None} == before


def test_a_frozen_copy_in_training_mode_decides_as_at_inference():
    backbone = build().requires_grad_(False)
    image = torch.randn(2, 3, 64, 64)
    with record_decisions(backbone) as log:
        expected = backbone.eval()(image)[-1]
        assert torch.equal(backbone.train()(image)[-1], expected)
    assert all(decision.mask is None for decision in log.decisions)
