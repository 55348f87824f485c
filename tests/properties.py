"""Properties that hold for every backbone, and what old releases of torch cannot do."""

import warnings

import pytest
import torch


def _autocasts(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with torch.autocast('cpu', dtype):
                return torch.ones(1, 1).mm(torch.ones(1, 1)).dtype == dtype
        except RuntimeError:
            return False


AUTOCAST_DTYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(
            not _autocasts(dtype), reason=f'this torch has no {dtype} autocast on the CPU'
        ),
    )
    for dtype in (torch.bfloat16, torch.float16)
]
needs_safe_globals = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'),
    reason='before torch 2.5 files with other objects than tensors are refused',
)


def check_dtype(model, dtype):
    """The whole model in another dtype."""
    model = model.to(dtype)
    for mode in (True, False):
        maps = model.train(mode)(torch.randn(2, 3, 64, 64, dtype=dtype))
        assert all(m.dtype == dtype and m.isfinite().all() for m in maps)


def check_nan_stays_in_its_image(model):
    model, image = model.eval(), torch.randn(2, 3, 64, 64)
    clean = model(image)
    broken = image.clone()
    broken[0, :, :10] = float('nan')
    maps = model(broken)
    assert maps[3][0].isnan().any()
    for a, b in zip(maps, clean):
        torch.testing.assert_close(a[1], b[1])


def backward_through(model, image, dtype):
    """Maps under autocast; their gradients are finite."""
    with torch.autocast('cpu', dtype):
        maps = model(image)
        loss = sum(m.float().square().mean() for m in maps)
    assert all(m.isfinite().all() for m in maps)
    loss.backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), key
    return maps
