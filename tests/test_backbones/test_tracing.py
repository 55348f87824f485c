"""Compilers and exporters see one graph and leave the eager model as it was."""

import io

import pytest
import torch
from golden import relative_error
from mmengine.registry import MODELS
from toys import SWIN, ToyModel

from dynsp_mm import families
from dynsp_mm.ops import windows
from dynsp_mm.ops.neighbourhoods import neighbourhood_mask
from dynsp_mm.training import SpatialSparsityHook

SAMPLES = [
    pytest.param(dict(sample, type=card.cls), id=f'{card.name}-{i}')
    for card in families.all_families()
    for i, sample in enumerate(card.samples)
]


@pytest.fixture(params=SAMPLES)
def model(request):
    torch._dynamo.reset()
    for cached in (windows.cyclic_shift_mask, windows.plan_windows, neighbourhood_mask):
        cached.cache_clear()  # a cold model: nothing of its shapes is known
    model = MODELS.build(request.param)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def compare(compiled, model, image):
    with torch.no_grad():
        got = compiled(image)
        expected = model(image)
        again = model(image)
    for a, b, c in zip(got, expected, again):
        assert relative_error(a, b) < 1e-5
        assert torch.equal(b, c)


@pytest.mark.parametrize('prepared', [False, True], ids=['modules', 'prepared'])
def test_one_graph(model, prepared):
    """Selection of a fixed budget has static shapes; nothing waits for values."""
    if prepared:  # compilers see the modules
        model.prepare_for_inference('eager')
    compare(
        torch.compile(model, fullgraph=True, backend='aot_eager'), model, torch.randn(2, 3, 64, 96)
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dynamic_swin', 'dynamic_convnext', 'stvit_swin'])
def test_inductor(name):
    torch._dynamo.reset()
    card = families.get(name)
    model = MODELS.build(dict(card.samples[0], type=card.cls)).eval()
    compare(torch.compile(model, fullgraph=True), model, torch.randn(1, 3, 64, 64))


def test_export_leaves_the_eager_model(model):
    """The first call of a cold model; caches must not keep what the tracer made."""
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        program = torch.export.export(model, (image,), strict=False)
    compare(program.module(), model, image)
    with torch.no_grad():
        model(torch.randn(2, 3, 96, 64))


@pytest.mark.filterwarnings('ignore')  # torch's general ones of tracing
def test_the_older_exporter_knows_all_operators():
    """``torch.onnx.export(dynamo=False)``; without the package onnx its last check is missing."""
    for ratios in (None, 0.7):
        model = MODELS.build(dict(SWIN, keep_ratios=ratios)).eval()
        file = io.BytesIO()
        try:
            torch.onnx.export(model, (torch.randn(1, 3, 64, 64),), file, dynamo=False)
        except torch.onnx.OnnxExporterError as error:
            assert 'onnx is not installed' in str(error)


@pytest.mark.filterwarnings('ignore')  # torch's general ones of tracing
@pytest.mark.parametrize('selection', ['topk', 'threshold'])
@pytest.mark.parametrize('name', ['dynamic_swin', 'dynamic_convnext'])
def test_traced_budgets_follow_the_size(name, selection):
    """At sizes where the traced dense network is right, so is the sparse one."""
    card = families.get(name)
    config = dict(card.samples[0], type=card.cls, selection=selection)
    if name == 'dynamic_swin':
        config.update(use_abs_pos_embed=False, pad_small_map=True)
    model = MODELS.build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        traced = torch.jit.trace(model, torch.randn(1, 3, 96, 128), strict=False, check_trace=False)
        for size in ((2, 3, 96, 128), (1, 3, 192, 256)):
            image = torch.randn(*size)
            for got, expected in zip(traced(image), model(image)):
                assert relative_error(got, expected) < 1e-5


def test_fake_tensors_leave_the_caches():
    windows.cyclic_shift_mask.cache_clear()
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        windows.cyclic_shift_mask((10, 10), 4, 2, torch.device('cpu'))
    mask = windows.cyclic_shift_mask((10, 10), 4, 2, torch.device('cpu'))
    assert type(mask) is torch.Tensor and mask.min() == -100
    assert windows.cyclic_shift_mask((10, 10), 4, 2, torch.device('cpu')) is mask


@pytest.mark.parametrize('mixing', ['merged', 'two_stream'])
def test_training_compiles_with_its_losses(mixing):
    """Mmengine's ``compile`` replaces the forward of the model; hooks must see each decision."""
    torch._dynamo.reset()
    model = ToyModel(dict(SWIN, mixing=mixing)).train()
    hook = SpatialSparsityHook()
    hook.attach(model)
    model.forward = torch.compile(model.forward, backend='eager')
    seen = []
    for _ in range(3):
        losses = model(torch.randn(2, 3, 64, 64), mode='loss')
        model.zero_grad()
        losses['loss_keep_ratio'].backward()
        assert model.backbone.token_predictors[0].head[-1].bias.grad.abs().sum() > 0
        targets = model.backbone.keep_ratios
        shares = torch.stack([losses[f'keep_ratio_{k}'] for k in range(3)])
        # The loss is of each image's share, so no less than that of their mean.
        least = 10 * (shares - torch.tensor(targets)).square().mean()
        assert losses['loss_keep_ratio'] > least - 1e-4
        seen.append(tuple(shares.tolist()))
    assert len(set(seen)) > 1  # drawn anew each time
