"""New parts that a run leaves as they were drawn are named before it trains."""

import pytest
import torch
from logs import warnings_of
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from toys import SWIN, ToyModel

from dynsp_mm import SpatialSparsityHook, SpatialSparsityOptimWrapperConstructor
from dynsp_mm.training.untrained import warn_slow


def said(model, paramwise_cfg=None, optim_wrapper=None, **group):
    """What the hook says before a run with one optimizer, or with the one given."""
    config = dict(optimizer=dict(type='SGD', lr=0.1), paramwise_cfg=paramwise_cfg)
    if optim_wrapper is None:
        optim_wrapper = build_optim_wrapper(model, dict(config))
    for entry in getattr(optim_wrapper, 'optimizer', optim_wrapper).param_groups if group else ():
        entry.update(group)
    hook = SpatialSparsityHook()
    with warnings_of() as texts:
        hook.attach(model, Config(dict(optim_wrapper=config)), optim_wrapper)
    hook.detach()
    return texts


def learn(model):
    """Moves what is new, as training or a sparse checkpoint does."""
    for part in model.backbone.parts_at_start().values():
        for parameter in part.parameters():
            parameter.data += 0.01
    return model


def keys(**mults):
    return dict(custom_keys={key: dict(lr_mult=mult) for key, mult in mults.items()})


def test_nothing_is_said_of_what_trains():
    assert said(ToyModel(SWIN)) == []
    assert said(ToyModel({**SWIN, 'frozen_stages': 1})) == []


def test_frozen_stages():
    (text,) = said(ToyModel({**SWIN, 'frozen_stages': 3}))
    assert '3 token predictors (token_predictors.0, ' in text and '3 fast paths (stages.2.' in text
    assert 'not trained in this run: frozen by frozen_stages=3' in text and 'at random' in text
    assert 'frozen_stages=1' in text and 'sparse checkpoint' in text


@pytest.mark.parametrize('arguments', [dict(frozen_stages=2), dict()])
def test_nothing_is_said_of_what_a_sparse_checkpoint_has_trained(arguments):
    assert said(learn(ToyModel({**SWIN, **arguments})), keys(backbone=0.0)) == []


def test_a_rate_of_zero_names_its_key():
    (text,) = said(ToyModel(SWIN), keys(backbone=0.0))
    assert "their learning rate is 0, by the key 'backbone' of paramwise_cfg.custom_keys" in text
    assert 'dict(token_predictors=dict(lr_mult=1), fast_path=dict(lr_mult=1))' in text
    rest = dict(token_predictors=1.0)
    (text,) = said(ToyModel(SWIN), keys(backbone=0.0, **rest))
    assert '3 fast paths' in text and 'token predictor' not in text.split(':')[1]
    assert said(ToyModel(SWIN), keys(backbone=0.0, fast_path=0.1, **rest)) == []


def test_warm_up_from_zero_is_no_fault():
    assert said(ToyModel(SWIN), lr=0.0, initial_lr=0.1) == []
    assert len(said(ToyModel(SWIN), lr=0.0, initial_lr=0.0)) == 1
    assert said(ToyModel(SWIN), lr=None) == []  # an optimizer that finds it


def test_one_part_of_several():
    model = ToyModel(SWIN)
    model.backbone.token_predictors[1].requires_grad_(False)
    (text,) = said(model)
    assert '1 token predictor (token_predictors.1)' in text and 'requires_grad=False' in text
    model = ToyModel(SWIN)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith('bias')  # as some fine-tune
    (text,) = said(model)
    assert '3 token predictors' in text and '3 fast paths' in text


def test_several_optimizers_and_none():
    model = ToyModel(SWIN)
    new = list(model.backbone.token_predictors.parameters())
    ids = {id(parameter) for parameter in new}
    old = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if id(p) not in ids], 0.1))

    def both(rate):
        return OptimWrapperDict(old=old, new=OptimWrapper(torch.optim.SGD(new, rate)))

    assert said(model, optim_wrapper=both(0.1)) == []
    (text,) = said(model, optim_wrapper=both(0.0))
    assert '3 token predictors' in text and 'their learning rate is 0.' in text
    (text,) = said(model, optim_wrapper=old)
    assert 'no group of the optimizer has them' in text
    foreign = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1))
    assert said(model, optim_wrapper=foreign) == []  # flattened copies: no telling


def adapted(**arguments):
    import mmpretrain.models  # noqa: F401

    return ToyModel(
        dict(
            type='mmpretrain.LoRAModel',
            module={**SWIN, **arguments},
            rank=2,
            targets=[dict(type='qkv'), dict(type='proj')],
        )
    )


def test_adapters_freeze_and_do_not_save(tmp_path):
    frozen, unsaved = said(adapted())
    assert '3 token predictors' in frozen and 'of backbone.module' in frozen
    assert 'checkpoints of this ToyModel will lack' in unsaved
    assert 'backbone.module.token_predictors.0' in unsaved
    torch.save(learn(ToyModel(SWIN)).backbone.state_dict(), tmp_path / 'sparse.pth')
    checkpoint = str(tmp_path / 'sparse.pth')
    model = adapted(init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
    assert said(model) == []
    model.backbone.module.token_predictors.requires_grad_(True)
    (text,) = said(model)
    assert 'will lack' in text


def test_random_selection_needs_no_predictors():
    assert said(ToyModel({**SWIN, 'selection': 'random'})) == []


def test_new_heads_at_the_rate_of_pretrained_ones():
    def text(names, **paramwise_cfg):
        wrapper = dict(
            constructor='SpatialSparsityOptimWrapperConstructor', paramwise_cfg=paramwise_cfg
        )
        with warnings_of() as texts:
            warn_slow(names, Config(dict(optim_wrapper=wrapper)))
        return ''.join(texts)

    assert 'such as head.fc.weight' in text(['head.fc.weight'])
    assert 'custom_keys=dict(head=dict(lr_mult=5))' in text(['head.fc.weight'])
    several = text(['decode_head.a', 'decode_head.b', 'auxiliary_head.a'])
    assert 'dict(decode_head=dict(lr_mult=5), auxiliary_head=dict(lr_mult=5)) gives' in several
    assert 'to all of decode_head and auxiliary_head, also to what the checkpoint has' in several
    assert not text([]) and not text(['head.fc.weight'], pretrained_lr_mult=1)
    assert not text(['head.fc.weight'], custom_keys=dict(head=dict(lr_mult=2)))
    warn_slow(['head.fc.weight'], Config())


class OwnConstructor(SpatialSparsityOptimWrapperConstructor):
    pass


@pytest.mark.parametrize(
    'constructor,said',
    [
        (SpatialSparsityOptimWrapperConstructor, True),
        ('dynsp_mm.SpatialSparsityOptimWrapperConstructor', True),
        (OwnConstructor, True),
        ('DefaultOptimWrapperConstructor', False),
        ('NoSuchConstructor', False),
    ],
)
def test_the_constructor_may_be_a_class(constructor, said):
    with warnings_of() as texts:
        warn_slow(['head.fc.weight'], Config(dict(optim_wrapper=dict(constructor=constructor))))
    assert bool(texts) == said
