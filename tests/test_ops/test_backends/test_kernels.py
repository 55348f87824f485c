import pytest
import torch
import torch.nn.functional as F

from dynsp_mm.ops import KERNELS, fold_norm, fold_scale, parts

BACKENDS = ('eager', 'onednn')


@pytest.fixture(params=BACKENDS)
def kernels(request):
    return KERNELS[request.param](torch.device('cpu'))


@pytest.fixture
def layer():
    return torch.randn(24, 17), torch.randn(24)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('count', [1, 5, 130])
def test_linear(kernels, layer, bias, count):
    weight, shift = layer[0], layer[1] if bias else None
    x, packed = torch.randn(count, 17), kernels.pack(weight, shift)
    torch.testing.assert_close(kernels.linear(x, packed), F.linear(x, weight, shift))
    torch.testing.assert_close(
        kernels.linear_gelu(x, packed), F.gelu(F.linear(x, weight, shift)), rtol=1e-5, atol=1e-5
    )


def test_packing_copies(kernels, layer):
    x, packed = torch.randn(3, 17), kernels.pack(*layer)
    expected = F.linear(x, *layer)
    for tensor in layer:
        tensor.zero_()
    torch.testing.assert_close(kernels.linear(x, packed), expected)


def test_gather_norm(kernels):
    tokens, rows = 5 + torch.randn(9, 17), torch.tensor([7, 0, 3])
    for chosen, some in ((tokens, None), (tokens[rows], rows), (tokens[:0], rows[:0])):
        expected = F.layer_norm(chosen, (17,), eps=0.1)
        torch.testing.assert_close(kernels.gather_norm(tokens, some, 0.1), expected)


def test_linear_add(kernels, layer):
    x, packed = torch.randn(3, 17), kernels.pack(*layer)
    target, rows = torch.randn(3, 24), torch.tensor([2, 0])
    expected = target + F.linear(x, *layer)
    some = target.clone()
    kernels.linear_add_(some, rows, x[rows], packed)
    torch.testing.assert_close(some[rows], expected[rows])
    assert torch.equal(some[1], target[1])
    kernels.linear_add_(target, None, x, packed)
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize('bias', [True, False])
def test_fold_norm(bias):
    x, (weight, shift) = torch.randn(5, 17), (torch.randn(24, 17), torch.randn(24))
    gain, offset = torch.randn(17), torch.randn(17)
    shift = shift if bias else None
    expected = F.linear(F.layer_norm(x, (17,), gain, offset), weight, shift)
    folded = F.linear(F.layer_norm(x, (17,)), *fold_norm(gain, offset, weight, shift))
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)


def test_fold_scale():
    x, weight, bias, scale = (torch.randn(*s) for s in ((5, 3), (4, 3), (4,), (4,)))
    expected = scale * F.linear(x, weight, bias)
    torch.testing.assert_close(F.linear(x, *fold_scale(scale, weight, bias)), expected)
    assert fold_scale(scale, weight, None)[1] is None
    assert fold_scale(None, weight, bias) == (weight, bias)


@pytest.mark.parametrize(
    'length,size,count',
    [(0, 4, 0), (0, None, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (9, 4, 3), (9, None, 1)],
)
def test_parts_cover(length, size, count):
    slices = parts(length, size)
    assert len(slices) == count
    assert [i for s in slices for i in range(length)[s]] == list(range(length))
    lengths = [s.stop - s.start for s in slices]
    assert not lengths or (max(lengths) <= (size or length) and max(lengths) - min(lengths) <= 1)
