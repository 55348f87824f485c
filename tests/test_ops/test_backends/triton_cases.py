"""The kernels against eager PyTorch; test_triton.py runs this file in a process of its own."""

import os

import pytest
import torch
import torch.nn.functional as F
from backend_checks import CHECKS
from mmengine.registry import MODELS

import dynsp_mm  # noqa: F401
from dynsp_mm.ops.backends import find_backend, resolve_backend
from dynsp_mm.ops.backends.triton import launch
from dynsp_mm.ops.backends.triton.bias_gelu import bias_gelu
from dynsp_mm.ops.backends.triton.layer_norm import gather_layer_norm
from dynsp_mm.ops.backends.triton.scatter_add import scale_scatter_add_

DEVICE = 'cpu' if os.environ.get('TRITON_INTERPRET') == '1' else 'cuda'
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Channels and rows: powers of two and not, blocks of several rows, and several blocks of columns.
SIZES = [(1, 130), (3, 5), (16, 130), (96, 130), (100, 5), (384, 1), (770, 5), (1100, 3), (96, 0)]
EPS = 1e-5


def eager_layer_norm(tokens, rows, weight, bias):
    tokens = tokens if rows is None else tokens[rows]
    return F.layer_norm(tokens, tokens.shape[1:], weight, bias, EPS)


def kernel_layer_norm(tokens, rows, weight, bias):
    return gather_layer_norm(tokens, rows, weight, bias, EPS)


def eager_bias_gelu(x, rows, bias):
    return F.gelu(x + bias)


def kernel_bias_gelu(x, rows, bias):
    return bias_gelu(x, bias)


def eager_scatter_add(residual, rows, update, scale, bias):
    update = update if bias is None else update + bias
    update = update if scale is None else update * scale
    return residual + update if rows is None else residual.index_add(0, rows, update)


def kernel_scatter_add(residual, rows, update, scale, bias):
    target = residual.clone()  # keeps the strides
    assert scale_scatter_add_(target, rows, update, scale, bias) is target
    return target


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, device=DEVICE).to(dtype)


def random_rows(K, M):
    return torch.randperm(M, device=DEVICE)[:K]


def layer_norm_case(C, K, dtype=torch.float32, gather=True):
    M = K + 7 if gather else K
    return (
        kernel_layer_norm,
        eager_layer_norm,
        random_rows(K, M) if gather else None,
        [3 * random(M, C, dtype=dtype) + 1, random(C, dtype=dtype), random(C, dtype=dtype)],
    )


def bias_gelu_case(C, K, dtype=torch.float32, gather=True):
    return (
        kernel_bias_gelu,
        eager_bias_gelu,
        None,
        [2 * random(K, C, dtype=dtype), random(C, dtype=dtype)],
    )


def scatter_add_case(C, K, dtype=torch.float32, gather=True):
    M = K + 7 if gather else K
    return (
        kernel_scatter_add,
        eager_scatter_add,
        random_rows(K, M) if gather else None,
        [
            random(M, C, dtype=dtype),
            random(K, C, dtype=dtype),
            random(C, dtype=dtype),
            random(C, dtype=dtype),
        ],
    )


CASES = [layer_norm_case, bias_gelu_case, scatter_add_case]


def run(function, rows, inputs):
    first, *others = inputs
    return function(first, rows, *others)


def compare(kernel, eager, rows, inputs):
    """Equal but for rounding: the expected numbers are float64."""
    actual = run(kernel, rows, inputs)
    assert actual.dtype == inputs[0].dtype
    exact = run(eager, rows, [None if x is None else x.double() for x in inputs])
    tolerance = dict(rtol=1e-5, atol=2e-5) if actual.dtype == torch.float32 else {}
    torch.testing.assert_close(actual, exact.to(actual.dtype), **tolerance)


@pytest.mark.parametrize('dtype', DTYPES)
def test_backend(dtype):
    assert resolve_backend('triton', DEVICE, dtype) == 'triton'


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('dtype', DTYPES)
def test_steps(dtype, check):
    """As every backend's, in test_backend_steps.py."""
    check(find_backend('triton', DEVICE, dtype), dtype)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('C, K', SIZES)
@pytest.mark.parametrize('case', CASES)
def test_output(case, C, K, dtype):
    compare(*case(C, K, dtype))


@pytest.mark.parametrize('K', [0, 5, 40])
@pytest.mark.parametrize('case', [layer_norm_case, scatter_add_case])
def test_all_rows(case, K):
    compare(*case(100, K, gather=False))


@pytest.mark.parametrize('without', [{1}, {2}, {3}, {1, 2}, {2, 3}])
@pytest.mark.parametrize('case', [layer_norm_case, scatter_add_case])
def test_without_some_vectors(case, without):
    kernel, eager, rows, inputs = case(20, 9)
    vectors = {i for i, x in enumerate(inputs) if x.dim() == 1}
    compare(
        kernel, eager, rows, [None if i in without & vectors else x for i, x in enumerate(inputs)]
    )


@pytest.mark.parametrize('case', CASES)
def test_parameters_of_another_dtype(case):
    """As in automatic mixed precision: activations in 16 bits, parameters in 32."""
    kernel, eager, rows, inputs = case(20, 9)
    compare(kernel, eager, rows, [x.half() if x.dim() == 2 else x for x in inputs])


@pytest.mark.parametrize('case', CASES)
def test_inputs_that_are_not_contiguous(case):
    kernel, eager, rows, inputs = case(20, 9)
    inputs = [
        x.t().contiguous().t() if x.dim() == 2 else x.repeat_interleave(2)[::2] for x in inputs
    ]
    assert not any(x.is_contiguous() for x in inputs)
    rows = None if rows is None else rows.repeat_interleave(2)[::2]
    compare(kernel, eager, rows, inputs)


@pytest.mark.parametrize('case', CASES)
def test_nan_stays_in_its_row(case):
    kernel, _, rows, inputs = case(20, 9)
    number = 0 if case is not scatter_add_case else 1
    bad = 4 if rows is None or number else int(rows[4])
    inputs[number][bad, 3] = float('nan')
    out = run(kernel, rows, inputs)
    place = int(rows[4]) if number else 4
    assert out.isnan().any(1).nonzero().flatten().tolist() == [place]
    if case is layer_norm_case:
        assert out[place].isnan().all()


def test_rows_not_named():
    kernel, _, rows, inputs = scatter_add_case(20, 9)
    others = sorted(set(range(16)) - set(rows.tolist()))
    before = inputs[0].clone()
    out = run(kernel, rows, inputs)
    assert torch.equal(out[others], before[others]) and (out[rows] != before[rows]).all()


@pytest.mark.parametrize('gather', [True, False])
@pytest.mark.parametrize('contiguous', [True, False])
def test_in_place(contiguous, gather):
    _, eager, rows, (residual, *others) = scatter_add_case(20, 9, gather=gather)
    expected = eager(residual, rows, *others)
    residual = residual if contiguous else residual.t().contiguous().t()
    assert residual.is_contiguous() == contiguous
    assert scale_scatter_add_(residual, rows, *others) is residual
    torch.testing.assert_close(residual, expected)


@pytest.mark.parametrize('case', CASES)
def test_no_gradient_is_lost(case):
    """The kernels have none, so they refuse who wants one, for each of their inputs."""
    kernel, _, rows, inputs = case(20, 9)
    names = {
        layer_norm_case: ('tokens', 'weight', 'bias'),
        bias_gelu_case: ('x', 'bias'),
        scatter_add_case: (None, 'update', 'scale', 'bias'),
    }[case]
    before = inputs[0].clone()
    for x, name in zip(inputs, names):
        if name is None:  # written to in place
            continue
        x.requires_grad_()
        with pytest.raises(ValueError, match=f'^{name}: requires a gradient'):
            run(kernel, rows, inputs)
        with torch.no_grad():
            run(kernel, rows, inputs)
        x.requires_grad_(False)
    assert torch.equal(inputs[0], before)


def test_in_place_loses_no_gradient():
    _, _, rows, (residual, update, *others) = scatter_add_case(20, 9)
    update.requires_grad_()
    before = residual.clone()
    with pytest.raises(ValueError, match='^update: requires a gradient'):
        scale_scatter_add_(residual, rows, update, *others)
    assert torch.equal(residual, before)
    with torch.no_grad():
        scale_scatter_add_(residual, rows, update, *others)
    assert not torch.equal(residual, before)
    residual.requires_grad_()
    with pytest.raises(ValueError, match='^residual: requires a gradient'):
        scale_scatter_add_(residual, rows, update.detach(), *others)


def test_no_rows_no_launch():
    """A GPU refuses a grid without programs; the interpreter does not mind."""

    class Kernel:
        def __getitem__(self, grid):
            raise AssertionError(grid)

    launch.Blocks(0, 4).launch(Kernel(), random(0, 4))
    with pytest.raises(AssertionError, match=r'^\(1, 1\)$'):
        launch.Blocks(1, 4).launch(Kernel(), random(1, 4))


def test_bad_input():
    x, vector = random(6, 4), random(4)
    rows = torch.arange(3, device=DEVICE)
    with pytest.raises(ValueError, match=r'^tokens: has shape \(2, 3, 4\), must have \(any, any\)'):
        gather_layer_norm(random(2, 3, 4))
    with pytest.raises(ValueError, match='^tokens: has shape .6, 0., must have 1 channel or more'):
        gather_layer_norm(random(6, 0))
    with pytest.raises(ValueError, match='^tokens: .* must have 8192 channels or less'):
        gather_layer_norm(random(1, 8193))
    with pytest.raises(ValueError, match='^x: is torch.float64, must be torch.float32 or'):
        bias_gelu(x.double(), vector)
    with pytest.raises(ValueError, match=r'^bias: has shape \(3,\), must have \(4\)'):
        bias_gelu(x, vector[:3])
    with pytest.raises(ValueError, match='^bias: is on meta, must be on'):
        bias_gelu(x, vector.to('meta'))
    with pytest.raises(ValueError, match='^rows: is torch.int32, must be torch.int64'):
        gather_layer_norm(x, rows.int())
    with pytest.raises(ValueError, match=r'^update: has shape \(6, 4\), must have \(3, 4\)'):
        scale_scatter_add_(x, rows, x)
    with pytest.raises(ValueError, match=r'^scale: has shape \(1, 4\), must have \(4\)'):
        scale_scatter_add_(x, None, x, vector[None])


@pytest.mark.parametrize(
    'config',
    [
        dict(
            type='DynamicSwin',
            keep_ratios=(0.7, 0.5, 0.3),
            arch=dict(embed_dims=8, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 2)),
        ),
        dict(
            type='DynamicConvNeXt',
            keep_ratios=(0.7, 0.5, 1e-6),
            gap_before_final_norm=False,
            layer_scale_init_value=0.5,
            arch=dict(depths=[1, 1, 4, 1], channels=[8, 12, 16, 20]),
        ),
        dict(
            type='STViTSwin',
            layer_scale_init_value=0.5,
            arch=dict(embed_dims=8, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 2)),
        ),
    ],
    ids=lambda config: config['type'],
)
def test_prepared_backbones(config, monkeypatch):
    """The folded forms with these kernels compute what the modules compute."""
    launched = []
    launch_ = launch.Blocks.launch

    def note(self, compiled, *args):
        launched.append((compiled.fn.__module__.rpartition('.')[2], compiled.fn.__name__))
        launch_(self, compiled, *args)

    monkeypatch.setattr(launch.Blocks, 'launch', note)
    model = MODELS.build({**config, 'out_indices': (0, 1, 2, 3)}).to(DEVICE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.3 * torch.randn_like(parameter))
    image = random(2, 3, 36, 64)
    with torch.no_grad():
        expected = model(image)
        assert not launched
        maps = model.prepare_for_inference('triton')(image)
    assert set(launched) == {
        (kernel, '_forward') for kernel in ('layer_norm', 'bias_gelu', 'scatter_add')
    }
    for a, b in zip(maps, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
