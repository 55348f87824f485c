"""Models of one's own: which forwards give losses, and training that goes past the hook."""

import pytest
import torch
from logs import warnings_of
from mmengine.optim import OptimWrapper, OptimWrapperDict
from toys import SWIN, ToyModel, toy_runner

from dynsp_mm import SpatialSparsityHook
from dynsp_mm.training.hooks.watch import mode_of, trained_module

IMAGES = [torch.zeros(3, 64, 64)] * 2


class Keywords(ToyModel):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class SomeKeywords(ToyModel):
    def forward(self, inputs, **kwargs):
        return super().forward(inputs, **kwargs)


class LossByDefault(ToyModel):
    def forward(self, inputs, data_samples=None, mode='loss'):
        return super().forward(inputs, data_samples, mode)


class OtherArguments(ToyModel):
    def forward(self, *images):
        return super().forward(images)


@pytest.mark.parametrize(
    'cls,args,kwargs,mode',
    [
        (Keywords, (IMAGES, None, 'loss'), {}, 'loss'),
        (Keywords, (IMAGES,), dict(mode='loss'), 'loss'),
        (Keywords, (IMAGES,), {}, 'tensor'),
        (SomeKeywords, (), dict(inputs=IMAGES, mode='loss'), 'loss'),
        (SomeKeywords, (IMAGES,), dict(mode='predict'), 'predict'),
        (LossByDefault, (IMAGES,), {}, 'loss'),
        (OtherArguments, (1, 2, 3, 4, 5), {}, None),
        (torch.nn.Identity, (1,), {}, None),
    ],
)
def test_the_mode_of_a_call(cls, args, kwargs, mode):
    model = cls(SWIN) if issubclass(cls, ToyModel) else cls()
    assert mode_of(model, args, kwargs) == mode


@pytest.mark.parametrize('cls', [Keywords, SomeKeywords, LossByDefault])
def test_losses_are_added_whatever_forward_takes(cls):
    model = cls(SWIN).train()
    SpatialSparsityHook().attach(model)
    assert 'loss_keep_ratio' in model(IMAGES, mode='loss')
    assert torch.is_tensor(model(IMAGES, mode='tensor'))


class Adapter(torch.nn.Module):
    """Hands on everything but calls, as mmpretrain's LoRAModel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def run(tmp_path, model, hook=None, **kwargs):
    """Names of what was logged, and what the hook warned of."""
    runner = toy_runner(tmp_path, [hook or dict(type='SpatialSparsityHook')], model, **kwargs)
    with warnings_of(runner.logger) as said:
        runner.train()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    return set(runner.message_hub.log_scalars), [text for text in said if 'trained' in text]


def test_an_adapter_around_the_model(tmp_path):
    model = ToyModel(SWIN)
    assert trained_module(Adapter(model)) is model and trained_module(model) is model
    logged, said = run(tmp_path, Adapter(model))
    assert 'train/loss_keep_ratio' in logged and not said


class OwnStep(ToyModel):
    def train_step(self, data, optim_wrapper):
        with optim_wrapper.optim_context(self):
            losses = ToyModel.forward(self, data['inputs'], mode='loss')
        total, log = self.parse_losses(losses)
        optim_wrapper.update_params(total)
        return log


@pytest.mark.parametrize(
    'wrapper', [dict(accumulative_counts=3), dict(optimizer=dict(type='AdamW', fused=True))]
)
def test_a_step_that_does_not_call_the_model_is_said_once(tmp_path, wrapper):
    wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3)) | wrapper
    logged, (text,) = run(tmp_path, OwnStep(SWIN), optim_wrapper=wrapper)
    assert 'train/loss_keep_ratio' not in logged
    assert 'iteration 1 trained the sparse backbone of this OwnStep' in text
    assert "must call self(inputs, data_samples, mode='loss')" in text


def test_frozen_predictors_miss_their_teacher(tmp_path):
    """Only maps would be compared, and are not."""
    model = OwnStep(SWIN)
    model.backbone.token_predictors.requires_grad_(False)
    teacher = ToyModel({**SWIN, 'keep_ratios': None})
    _, said = run(tmp_path, model, SpatialSparsityHook(teacher=teacher))
    assert any('iteration 1 trained the sparse backbone' in text for text in said)
    _, said = run(tmp_path, OwnStep(SWIN), SpatialSparsityHook(keep_ratio_weight=0))
    assert not said  # there is nothing to add


def test_gradients_that_are_gathered_are_no_fault(tmp_path):
    wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3), accumulative_counts=3)
    logged, said = run(tmp_path, ToyModel(SWIN), optim_wrapper=wrapper)
    assert 'train/loss_keep_ratio' in logged and not said


class Adversarial(ToyModel):
    """Trains its critic in each iteration and the rest in each second one."""

    calls = 0

    def __init__(self, backbone):
        super().__init__(backbone)
        self.critic = torch.nn.Conv2d(128, 1, 1)

    def train_step(self, data, optim_wrapper):
        with torch.no_grad():
            features = self(data['inputs'])
        total, log = self.parse_losses(dict(loss_critic=self.critic(features).mean()))
        optim_wrapper['critic'].update_params(total)
        self.calls += 1
        if self.calls % 2 == 0:
            total, more = self.parse_losses(self(**data, mode='loss'))
            optim_wrapper['backbone'].update_params(total)
            log.update(more)
        return log


def test_steps_that_leave_the_backbone_alone_are_no_fault(tmp_path):
    model = Adversarial(SWIN)
    parts = {
        name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), 0.1))
        for name in ('critic', 'backbone')
    }
    logged, said = run(tmp_path, model, optim_wrapper=OptimWrapperDict(**parts))
    assert 'train/loss_keep_ratio' in logged and not said


class Deaf(ToyModel):
    """Its predictors run without their hooks, as those in compiled code do."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        hooks = [p._forward_hooks for p in self.backbone.token_predictors]
        kept = [dict(own) for own in hooks]
        for own in hooks:
            own.clear()
        try:
            return super().forward(inputs, data_samples, mode)
        finally:
            for own, old in zip(hooks, kept):
                own.update(old)


def test_decisions_that_go_past_the_hook_are_said(tmp_path):
    _, (text,) = run(tmp_path, Deaf(SWIN))
    assert 'decisions of its token predictors went past the hook' in text and 'compile' in text
