"""Compilers and exporters see one graph and leave the eager model as it was."""

import pytest
import torch
from golden import relative_error
from mmengine.registry import MODELS

from dynsp_mm import families
from dynsp_mm.ops import windows
from dynsp_mm.ops.neighbourhoods import neighbourhood_mask

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


def test_fake_tensors_leave_the_caches():
    windows.cyclic_shift_mask.cache_clear()
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        windows.cyclic_shift_mask((10, 10), 4, 2, torch.device('cpu'))
    mask = windows.cyclic_shift_mask((10, 10), 4, 2, torch.device('cpu'))
    assert type(mask) is torch.Tensor and mask.min() == -100
    assert windows.cyclic_shift_mask((10, 10), 4, 2, torch.device('cpu')) is mask
