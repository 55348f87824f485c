import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from toys import SWIN

from dynsp_mm import record_decisions
from dynsp_mm.analysis.steps import BackboneAlone, decides, inference_step, training_step
from dynsp_mm.training import SpatialSparsityHook

CPU = torch.device('cpu')


class Scale(torch.nn.Module):
    """Notes in which circumstances it runs."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 2, 1)
        self.norm = torch.nn.BatchNorm2d(2)
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.seen = []

    def forward(self, x):
        out = self.layer(x)
        self.seen.append((self.training, torch.is_inference_mode_enabled(), out.dtype))
        return out, 2 * out


def test_inference():
    model = BackboneAlone(Scale())
    batch = dict(inputs=torch.ones(2, 3, 4, 4))
    first, second = inference_step(model, batch, CPU)()
    assert not first.requires_grad and torch.equal(second, 2 * first)
    inference_step(model, batch, CPU, torch.bfloat16)()
    assert model.backbone.seen == [(False, True, torch.float32), (False, True, torch.bfloat16)]


def test_training():
    """Each parameter that learns gets a gradient, and none moves: all steps are alike."""
    model = BackboneAlone(Scale())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = []
    model.backbone.layer.weight.register_hook(lambda value: gradients.append(value.clone()))
    step = training_step(model, dict(inputs=torch.ones(2, 3, 4, 4)), CPU)
    step()
    step()
    assert model.backbone.seen == [(True, False, torch.float32)] * 2
    # The loss is the mean of |x| and of |2 x|.
    expected = 1.5 * model.backbone.layer(torch.ones(1, 3, 1, 1)).sign().view(2, 1, 1, 1)
    assert torch.allclose(gradients[0], expected.expand(2, 3, 1, 1))
    assert torch.equal(gradients[0], gradients[1])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    training_step(model, dict(inputs=torch.ones(2, 3, 4, 4)), CPU, torch.bfloat16)()
    assert model.backbone.seen[-1] == (True, False, torch.bfloat16)


def test_training_holds_the_keep_ratio():
    model = BackboneAlone(MODELS.build(SWIN))
    losses = []
    parse = model.parse_losses
    model.parse_losses = lambda values: losses.append(values) or parse(values)
    with record_decisions(model) as log:
        training_step(model, dict(inputs=torch.randn(1, 3, 64, 64)), CPU)()
    assert len(log) == 3
    assert {'loss', 'loss_keep_ratio'} < set(losses[0]) and losses[0]['loss_keep_ratio'] > 0


def test_a_backbone_from_its_config():
    model = MODELS.build(dict(type='BackboneAlone', backbone=SWIN))
    assert isinstance(model, BackboneAlone) and decides(model)
    assert type(model.backbone).__name__ == 'DynamicSwin'
    assert not decides(BackboneAlone(MODELS.build(dict(SWIN, keep_ratios=None))))


def test_training_with_a_teacher(monkeypatch, tmp_path):
    """The teacher is the model's own dense form, and no file is written for it."""
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    model = BackboneAlone(MODELS.build(SWIN))
    image = torch.randn(1, 3, 64, 64)
    losses, built = [], []
    parse = model.parse_losses
    model.parse_losses = lambda values: losses.append(values) or parse(values)
    original = SpatialSparsityHook.attach

    def attach(hook, *args):
        original(hook, *args)
        built.append(hook.distillation.teacher)

    monkeypatch.setattr(SpatialSparsityHook, 'attach', attach)

    def save(*args, **kwargs):
        raise AssertionError('a file is written')

    monkeypatch.setattr(torch, 'save', save)
    cfg = Config(dict(model=dict(type='BackboneAlone', backbone=SWIN)))
    step = training_step(model, dict(inputs=image), CPU, teacher=cfg)
    assert list(tmp_path.iterdir()) == []
    (teacher,) = built
    before = copy.deepcopy(model.state_dict())
    step()
    step()
    assert losses[0]['loss_distill_map_0'] > 0 and losses[0]['loss_keep_ratio'] > 0
    assert not decides(teacher.model) and not teacher.model.training
    assert not any('fast' in name for name in teacher.model.state_dict())
    weights = teacher.model.state_dict()
    assert len(weights) > 50
    for name, value in weights.items():
        assert torch.equal(value, model.state_dict()['backbone.' + name]), name
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value), name
    with pytest.raises(ValueError, match='has no token predictors'):
        training_step(
            BackboneAlone(MODELS.build(dict(SWIN, keep_ratios=None))),
            dict(inputs=image),
            CPU,
            teacher=cfg,
        )


def test_a_teacher_of_a_backbone_alone_by_the_config_of_its_whole_model(monkeypatch):
    """Only the backbone is looked at, so only its weights must be there."""

    @MODELS.register_module(force=True)
    class WithHead(BackboneAlone):
        def __init__(self, backbone):
            super().__init__(backbone)
            self.neck = torch.nn.Linear(2, 2)

    model = BackboneAlone(MODELS.build(SWIN))
    teachers = []
    attach = SpatialSparsityHook.attach
    monkeypatch.setattr(
        SpatialSparsityHook,
        'attach',
        lambda hook, *args: attach(hook, *args) or teachers.append(hook.distillation.teacher),
    )
    cfg = Config(dict(model=dict(type='WithHead', backbone=SWIN)))
    training_step(model, dict(inputs=torch.randn(1, 3, 64, 64)), CPU, teacher=cfg)()
    for name, value in teachers[0].model.state_dict().items():
        assert torch.equal(value, model.state_dict()['backbone.' + name]), name
