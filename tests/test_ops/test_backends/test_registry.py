import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from dynsp_mm.errors import UserError
from dynsp_mm.ops import BACKENDS
from dynsp_mm.ops.backends import (
    BACKEND_CLASSES,
    fallback_reasons,
    find_backend,
    register_backend,
    resolve_backend,
)
from dynsp_mm.ops.backends.eager import EagerBackend
from dynsp_mm.ops.backends.triton import backend

CPU, CUDA = torch.device('cpu'), torch.device('cuda', 0)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OPERATORS = dict(
    _linear_pointwise=None, _reorder_linear_weight=None, _is_mkldnn_bf16_supported=lambda: True
)


class Machine:
    """Sets what the rules ask PyTorch and the environment about, whatever this machine is."""

    def __init__(self, monkeypatch):
        self.patch = monkeypatch
        monkeypatch.delenv('TRITON_INTERPRET', raising=False)
        self.onednn()
        self.gpu((9, 0))
        self.triton(SimpleNamespace())

    def onednn(self, available=True, enabled=True, operators=OPERATORS):
        mkldnn = SimpleNamespace(is_available=lambda: available, enabled=enabled)
        self.patch.setattr(torch.backends, 'mkldnn', mkldnn)
        self.patch.setattr(torch.ops, 'mkldnn', SimpleNamespace(**operators))

    def gpu(self, capability):
        """None for no GPU."""
        self.patch.setattr(torch.cuda, 'is_available', lambda: capability is not None)
        self.patch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)

    def triton(self, module):
        """None makes importing it fail."""
        self.patch.setitem(sys.modules, 'triton', module)

    def interpreter(self, exists):
        self.patch.setenv('TRITON_INTERPRET', '1')
        self.patch.setattr(backend, 'has_interpreter', lambda: exists)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def refused(name, device, dtype):
    """Why a named backend cannot run; 'auto' then takes eager."""
    assert resolve_backend('auto', device, dtype) == 'eager'
    with pytest.raises(ValueError) as error:
        resolve_backend(name, device, dtype)
    prefix, reason = str(error.value).split(': ', 1)
    assert prefix == f'backend={name!r}'
    return reason


def test_automatic(machine):
    assert [resolve_backend('auto', CPU, dtype) for dtype in DTYPES] == [
        'onednn',
        'eager',
        'onednn',
        'eager',
    ]
    # Triton by name only, before it is measured.
    assert {resolve_backend('auto', CUDA, dtype) for dtype in DTYPES} == {'eager'}
    assert resolve_backend('auto', torch.device('meta'), torch.float32) == 'eager'


def test_named(machine):
    assert resolve_backend('onednn', CPU, torch.float32) == 'onednn'
    assert resolve_backend('triton', CUDA, torch.float16) == 'triton'
    for device in (CPU, CUDA):
        for dtype in DTYPES:
            assert resolve_backend('eager', device, dtype) == 'eager'


@pytest.mark.parametrize('name', ['cuda', 'Triton', '', None])
def test_unknown_name(name):
    with pytest.raises(ValueError) as error:
        resolve_backend(name, CPU, torch.float32)
    choices = ', '.join(map(repr, BACKENDS))
    assert choices.startswith("'auto', 'eager', ")
    assert str(error.value) == f'backend={name!r}: must be one of {choices}'


def test_another_device(machine):
    with pytest.raises(
        ValueError, match="^backend='triton': needs a CUDA device, the tensors are on cpu$"
    ):
        resolve_backend('triton', CPU, torch.float32)
    with pytest.raises(
        ValueError, match="^backend='onednn': needs the CPU, the tensors are on cuda:0$"
    ):
        resolve_backend('onednn', CUDA, torch.float32)


def test_another_dtype(machine):
    assert refused('triton', CUDA, torch.float64) == (
        'needs float32, float16 or bfloat16, the tensors are float64'
    )
    assert refused('onednn', CPU, torch.float16) == (
        'needs float32 or bfloat16, the tensors are float16'
    )


def test_without_triton(machine):
    machine.triton(None)
    assert refused('triton', CUDA, torch.float32).startswith('triton cannot be imported: ')


def test_without_cuda(machine):
    machine.gpu(None)
    assert refused('triton', CUDA, torch.float32) == 'PyTorch sees no CUDA device'


def test_old_gpu(machine):
    machine.gpu((7, 5))
    assert resolve_backend('triton', CUDA, torch.float16) == 'triton'
    assert refused('triton', CUDA, torch.bfloat16) == (
        'bfloat16 needs compute capability 8.0, cuda:0 has 7.5'
    )
    machine.gpu((6, 1))
    assert refused('triton', CUDA, torch.float32) == (
        'float32 needs compute capability 7.0, cuda:0 has 6.1'
    )


def test_interpreter(machine):
    machine.interpreter(True)
    assert resolve_backend('triton', CPU, torch.bfloat16) == 'triton'
    # It is for tests: nobody gets it unasked.
    assert resolve_backend('auto', CPU, torch.float32) == 'onednn'
    machine.interpreter(False)
    with pytest.raises(ValueError, match='needs a CUDA device'):
        resolve_backend('triton', CPU, torch.float32)


@pytest.mark.parametrize(
    'settings, reason',
    [
        (dict(available=False), 'this PyTorch is built without oneDNN'),
        (dict(enabled=False), 'torch.backends.mkldnn is switched off'),
        *(
            (
                dict(operators={key: value for key, value in OPERATORS.items() if key != name}),
                f'this PyTorch has no torch.ops.mkldnn.{name}',
            )
            for name in ('_linear_pointwise', '_reorder_linear_weight')
        ),
    ],
)
def test_without_onednn(machine, settings, reason):
    machine.onednn(**settings)
    assert refused('onednn', CPU, torch.float32) == reason


@pytest.mark.parametrize('supported', [False, None])
def test_bfloat16_of_the_processor(machine, supported):
    """None: this PyTorch cannot tell."""
    operators = {**OPERATORS, '_is_mkldnn_bf16_supported': lambda: supported}
    if supported is None:
        del operators['_is_mkldnn_bf16_supported']
    machine.onednn(operators=operators)
    assert resolve_backend('onednn', CPU, torch.float32) == 'onednn'
    assert refused('onednn', CPU, torch.bfloat16) == (
        'oneDNN computes no bfloat16 on this processor'
    )


def test_this_machine(monkeypatch):
    """The rules ask for things that exist under these names."""
    assert resolve_backend('auto', CPU, torch.float32) in ('eager', 'onednn')
    assert resolve_backend('auto', 'cpu', torch.bfloat16) in ('eager', 'onednn')
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise'):
        assert resolve_backend('onednn', CPU, torch.float32) == 'onednn'
    monkeypatch.setattr(torch.backends.mkldnn, 'enabled', False)
    assert resolve_backend('auto', CPU, torch.float32) == 'eager'


def test_all_reasons_are_given(machine):
    machine.onednn(available=False, enabled=False, operators={})
    machine.gpu(None)
    machine.triton(None)
    onednn = BACKEND_CLASSES['onednn'].not_supported_reasons(CUDA, torch.bfloat16)
    assert onednn == [
        'needs the CPU, the tensors are on cuda:0',
        'this PyTorch is built without oneDNN',
        'torch.backends.mkldnn is switched off',
        'this PyTorch has no torch.ops.mkldnn._linear_pointwise',
        'this PyTorch has no torch.ops.mkldnn._reorder_linear_weight',
        'oneDNN computes no bfloat16 on this processor',
    ]
    triton = BACKEND_CLASSES['triton'].not_supported_reasons(CPU, torch.float64)
    assert triton[:3] == [
        'needs float32, float16 or bfloat16, the tensors are float64',
        'needs a CUDA device, the tensors are on cpu',
        'PyTorch sees no CUDA device',
    ]
    assert len(triton) == 4 and triton[3].startswith('triton cannot be imported: ')
    for name, device, dtype, reasons in (
        ('onednn', CUDA, torch.bfloat16, onednn),
        ('triton', CPU, torch.float64, triton),
    ):
        with pytest.raises(UserError) as error:
            find_backend(name, device, dtype)
        assert str(error.value) == f'backend={name!r}: ' + '; '.join(reasons)


def test_why_automatic_falls_back(machine, caplog):
    caplog.set_level(logging.INFO, 'dynsp_mm')
    assert fallback_reasons('cpu', torch.float32) == {}
    assert find_backend('auto', CPU, torch.float32).name == 'onednn' and not caplog.messages
    assert fallback_reasons(CPU, torch.float16) == {
        'onednn': ['needs float32 or bfloat16, the tensors are float16']
    }
    assert find_backend('auto', 'cpu', torch.float16).name == 'eager'
    assert caplog.messages == [
        "backend 'onednn' cannot run, 'eager' runs: "
        'needs float32 or bfloat16, the tensors are float16'
    ]
    # Nothing is preferred to eager there.
    assert fallback_reasons(CUDA, torch.float32) == {}


@pytest.fixture
def toy():
    """A backend that a stranger wrote."""

    @register_backend
    class Toy(EagerBackend):
        name = 'toy'
        devices = ('cpu', 'xpu')
        dtypes = (torch.float16,)
        tolerances = {torch.float16: 1e-2}
        preferred_on = ('cpu',)

    yield Toy
    del BACKEND_CLASSES['toy']
    BACKENDS.remove('toy')


def test_a_backend_registers_itself(toy, machine):
    assert BACKENDS[-1] == 'toy' and resolve_backend('toy', CPU, torch.float16) == 'toy'
    found = find_backend('auto', 'cpu', torch.float16)
    assert type(found) is toy and found.device == CPU
    # The first that is preferred and can run.
    assert resolve_backend('auto', CPU, torch.float32) == 'onednn'
    assert list(fallback_reasons(CPU, torch.float64)) == ['onednn', 'toy']
    with pytest.raises(ValueError) as error:
        resolve_backend('toy', CUDA, torch.float32)
    assert str(error.value) == (
        "backend='toy': needs the CPU or a device of type xpu, the tensors are on cuda:0; "
        'needs float16, the tensors are float32'
    )


@pytest.mark.parametrize('name', ['auto', 'eager', 'toy'])
def test_names_are_not_taken_twice(toy, name):
    before = dict(BACKEND_CLASSES), list(BACKENDS)
    with pytest.raises(
        ValueError, match=rf"^Other\.name='{name}': is taken; the names are 'auto',"
    ):
        register_backend(type('Other', (EagerBackend,), dict(name=name)))
    assert (BACKEND_CLASSES, BACKENDS) == before


def test_each_dtype_has_a_tolerance():
    changes = dict(name='other', dtypes=(torch.float32, torch.int8))
    with pytest.raises(ValueError, match=r'must name each of its dtypes; torch.int8 is missing'):
        register_backend(type('Other', (EagerBackend,), changes))
    assert 'other' not in BACKENDS
