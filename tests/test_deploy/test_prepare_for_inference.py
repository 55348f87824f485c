from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from toys import SWIN, Images, ToyModel, toy_runner

import dynsp_mm
from dynsp_mm.analysis import count_macs
from dynsp_mm.deploy.prepare import PrepareForInferenceHook
from dynsp_mm.prepared import Preparable, unprepared


def forms(model):
    return [m._form is not None for m in model.modules() if isinstance(m, Preparable)]


def test_prepares_the_backbones_of_a_model():
    model = ToyModel(SWIN)
    assert dynsp_mm.prepare_for_inference(model) is model
    assert not any(module.training for module in model.modules())
    assert forms(model) and all(forms(model))
    with torch.no_grad():
        image = torch.randn(2, 3, 64, 64)
        folded = model(image)
        with unprepared():
            torch.testing.assert_close(folded, model(image), rtol=1e-4, atol=1e-4)


def test_model_without_our_backbone():
    with pytest.raises(ValueError, match='Linear has no backbone of dynsp_mm'):
        dynsp_mm.prepare_for_inference(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    'backend,message',
    [
        ('fast', "backend='fast': must be one of"),
        ('triton', "backend='triton': needs a CUDA"),
        (None, 'backend=None: must be one of'),
    ],
)
def test_backend_that_cannot_run(backend, message, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    model = ToyModel(SWIN).train()
    with pytest.raises(ValueError, match=message):
        model.backbone.prepare_for_inference(backend)
    assert model.backbone.training and not any(forms(model))


def test_hook_with_a_backend_that_cannot_run():
    with pytest.raises(ValueError, match="backend='fast': must be one of"):
        PrepareForInferenceHook('fast')
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    PrepareForInferenceHook().before_test_epoch(runner)
    with pytest.raises(ValueError, match='Linear has no backbone of dynsp_mm'):
        PrepareForInferenceHook('eager').before_test_epoch(runner)


def test_half_precision_on_the_cpu_is_eager():
    model = ToyModel(SWIN).half()
    model.backbone.prepare_for_inference()
    with pytest.raises(ValueError, match='float16'):
        model.backbone.prepare_for_inference('onednn')


def test_counts_the_same_multiply_adds():
    model, image = ToyModel(SWIN).eval(), torch.randn(1, 3, 64, 64)
    plain = count_macs(model.backbone, image)
    dynsp_mm.prepare_for_inference(model)
    assert count_macs(model.backbone, image) == plain


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Depart(Hook):
    """Moves averaged weights away from the model's; without a checkpoint a test copies these."""

    priority = 'VERY_HIGH'

    def __init__(self, average):
        self.average = average

    def before_test(self, runner):
        with torch.no_grad():
            for parameter in self.average.ema_model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.averaged = weights(self.average.ema_model)

    def after_test_epoch(self, runner, metrics=None):
        # Where mmpretrain's EMAHook exchanges weights by .data and tests again.
        self.left = any(forms(runner.model))


class Watch(BaseModel):
    """Notes in each test forward whether the forms were there and the weights."""

    def __init__(self):
        super().__init__()
        self.model = ToyModel(SWIN)
        self.seen = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            self.seen.append((all(forms(self)), weights(self)))
            image = torch.stack(list(inputs))
            maps = self.model.backbone(image)
            with unprepared():
                torch.testing.assert_close(maps, self.model.backbone(image), rtol=1e-4, atol=1e-4)
            return list(maps[-1])
        return self.model(inputs, data_samples, mode)


def test_hook_prepares_for_a_test_with_averaged_weights(tmp_path):
    class Nothing:
        """An evaluator."""

        metrics = []

        def process(self, *args, **kwargs):
            pass

        def evaluate(self, size):
            return {}

    loader = dict(
        dataset=Images(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
    )
    average = EMAHook(momentum=0.5)
    depart = Depart(average)
    runner = toy_runner(
        tmp_path,
        [average, depart, dict(type='PrepareForInferenceHook')],
        Watch(),
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=Nothing(),
    )
    runner.train()
    assert not any(forms(runner.model))
    runner.test()
    for folded, tested in runner.model.seen:
        assert folded and torch.equal(tested, depart.averaged)
    assert len(runner.model.seen) == 2 and not depart.left
    assert not any(forms(runner.model))
    assert not torch.equal(weights(runner.model), depart.averaged)
