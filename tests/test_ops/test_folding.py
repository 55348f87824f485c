import pytest
import torch
import torch.nn.functional as F

from dynsp_mm.ops import fold_norm, fold_scale, pieces


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
    slices = pieces(length, size)
    assert len(slices) == count
    assert [i for s in slices for i in range(length)[s]] == list(range(length))
    lengths = [s.stop - s.start for s in slices]
    assert not lengths or (max(lengths) <= (size or length) and max(lengths) - min(lengths) <= 1)
