"""Every registered backend computes the steps of eager torch, in each of its dtypes."""

import pytest
import torch
from backend_checks import CHECKS

from dynsp_mm.analysis.machine import check_dtype
from dynsp_mm.ops.backends import BACKEND_CLASSES, Backend, find_backend, resolve_backend

CASES = [(name, dtype) for name, cls in BACKEND_CLASSES.items() for dtype in cls.tolerances]


def torch_computes(device, dtype):
    """Older torch has no float16 on a CPU."""
    try:
        check_dtype(dtype, device)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('name, dtype', CASES)
def test_step(name, dtype, check):
    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    able = [
        device
        for device in map(torch.device, devices)
        if torch_computes(device, dtype)
        and not BACKEND_CLASSES[name].not_supported_reasons(device, dtype)
    ]
    if not able:
        pytest.skip(f'{name} does not compute {dtype} on {" or ".join(devices)} here')
    for device in able:
        check(find_backend(name, device, dtype), dtype)


@pytest.mark.parametrize('name', BACKEND_CLASSES)
def test_what_a_backend_declares(name):
    cls = BACKEND_CLASSES[name]
    assert issubclass(cls, Backend) and cls.__doc__
    assert cls.dtypes is None or set(cls.dtypes) == set(cls.tolerances)
    assert set(cls.preferred_on) <= set(cls.devices or cls.preferred_on)
    assert all(0 < tolerance < 0.1 for tolerance in cls.tolerances.values())
    # A device that nobody has: a reason or none, never an error.
    for device in (torch.device('cpu'), torch.device('meta')):
        for dtype in (torch.float32, torch.int8):
            reasons = cls.not_supported_reasons(device, dtype)
            assert all(isinstance(reason, str) and reason for reason in reasons)


def test_rows_that_are_taken_at_a_time():
    assert find_backend('eager', 'cpu', torch.float32).chunk > 1
    assert BACKEND_CLASSES['eager'](torch.device('cuda')).chunk is None
    assert resolve_backend('eager', 'cpu', torch.float64) == 'eager'


def test_hooks_of_a_convolution_are_called():
    seen = []
    conv = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)
    conv.register_forward_hook(lambda module, args, output: seen.append(output))
    out = find_backend('auto', 'cpu', torch.float32).convolve(conv, torch.randn(1, 4, 5, 6))
    assert len(seen) == 1 and torch.equal(seen[0], out)
